"""tvm_ffi, TVM's runtime library and ours, loaded without ``import tvm`` and without torch."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType

from tvm_ahcq.errors import DeviceError


@lru_cache(maxsize=1)
def tvm_ffi() -> ModuleType:
    """The tvm_ffi package.

    Where torch is installed, tvm_ffi imports it first, against a clash of symbols seen on Windows only. That costs
    0.8 s and 180 MB in a process that has no use for torch, so it is hidden from this one import.
    """
    hide = "torch" not in sys.modules and not sys.platform.startswith("win")
    if hide:
        sys.modules["torch"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        import tvm_ffi as module
    except ImportError as error:
        raise DeviceError("the package apache-tvm-ffi is not installed; `pip install tvm-ahcq` brings it") from error
    finally:
        if hide:
            del sys.modules["torch"]
    return module


@lru_cache(maxsize=1)
def tvm_runtime() -> ctypes.CDLL:
    """TVM's runtime library, made global: compiled libraries look their symbols up in it."""
    tvm_ffi()
    searched = [Path(folder) for folder in (os.environ.get("TVM_LIBRARY_PATH"),) if folder]
    spec = importlib.util.find_spec("tvm")  # finds the package, does not execute it
    if spec is not None and spec.submodule_search_locations:
        searched += [Path(folder) / "lib" for folder in spec.submodule_search_locations]
    return ctypes.CDLL(
        str(_find("tvm_runtime", searched, "install it with `pip install apache-tvm`")), mode=ctypes.RTLD_GLOBAL
    )


@lru_cache(maxsize=1)
def ahcq_library() -> ModuleType:
    """tvm_ffi, once our own C++ library is loaded and has registered its ``ahcq.*`` functions."""
    import tvm_ahcq

    folders = [Path(folder) / "lib" for folder in tvm_ahcq.__path__]
    library = _find("tvm_ahcq", folders, "build it with `pip install .` (or `pip install -e .`) in the source tree")
    module = tvm_ffi()
    module.load_module(str(library))
    return module


def _find(name: str, folders: list[Path], remedy: str) -> Path:
    suffix = {"darwin": ".dylib", "win32": ".dll"}.get(sys.platform, ".so")
    prefix = "" if sys.platform == "win32" else "lib"
    for folder in folders:
        if (folder / f"{prefix}{name}{suffix}").is_file():
            return folder / f"{prefix}{name}{suffix}"
    looked = ", ".join(map(str, folders)) or "nowhere: its package is not installed"
    raise DeviceError(f"{prefix}{name}{suffix} was not found (looked in {looked}); {remedy}")
