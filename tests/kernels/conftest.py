"""Runs kernels on numpy arrays: in this process, or in an emulator of another processor."""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm_ffi import libinfo

from tvm_ahcq.runtime.cpu import request_amx
from tvm_ahcq.target import HostTarget, host_features, resolve_target

EMULATED = {"aarch64": "cortex-a53", "aarch64-dotprod": "max"}
"""Targets that are built with a cross compiler and run by qemu, as the processor named here."""

CROSS_COMPILER, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"

TYPE_CODES = {"i": 0, "u": 1, "f": 2}
"""DLPack's numbers for kinds of numpy types."""

Run = Callable[..., np.ndarray]


@pytest.fixture(scope="session", params=["native", "generic", "avx2"])
def target(request: pytest.FixtureRequest) -> HostTarget:
    """The native target of the machine, the generic one, and AVX2."""
    target = resolve_target(request.param)
    if not host_features().issuperset(target.cpu_features):
        pytest.skip(f"this machine cannot run code for {target.name}")
    if request.param != "native" and target == resolve_target("native"):
        pytest.skip(f"{target.name} is this machine's native target")
    if "amx-tile" in target.cpu_features:
        request_amx()
    return target


@pytest.fixture(scope="session")
def build(target: HostTarget) -> Callable[[tvm.tirx.PrimFunc], Run]:
    """Compiles a PrimFunc to a function ``(*arrays, shape=..., dtype=...) -> array``; `shape` is the output's."""
    return functools.partial(compiled, target)


@pytest.fixture(scope="session", params=EMULATED)
def foreign(request: pytest.FixtureRequest) -> HostTarget:
    """A target that only an emulator runs here."""
    absent = [tool for tool in (CROSS_COMPILER, EMULATOR) if shutil.which(tool) is None]
    if absent:
        pytest.skip(f"{' and '.join(absent)} not installed (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    return resolve_target(request.param)


@pytest.fixture
def emulate(foreign: HostTarget, tmp_path: Path) -> Callable[[tvm.tirx.PrimFunc], Run]:
    """Like `build`, for the target that needs an emulator."""
    return lambda func: emulated(foreign, func, tmp_path)


def blank(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """An output filled with a value that no kernel may leave behind."""
    return np.full(shape, 113, dtype)


def compiled(target: HostTarget, func: tvm.tirx.PrimFunc) -> Run:
    """`func` as a function of this process."""
    kernel = tvm.compile(func, target=target.tvm_target())

    def run(*arrays: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        out = tvm.runtime.tensor(blank(shape, dtype))
        kernel(*map(tvm.runtime.tensor, arrays), out)
        return out.numpy()

    return run


def emulated(target: HostTarget, func: tvm.tirx.PrimFunc, folder: Path) -> Run:
    """`func` as a separate program that an emulator runs."""
    program, kernel, data = folder / "kernel", folder / "kernel.o", folder / "arrays"
    tvm.compile(func, target=target.tvm_target()).mod.write_to_file(str(kernel), "o")
    includes = [f"-I{path}" for path in (libinfo.find_include_path(), libinfo.find_dlpack_include_path())]
    main = Path(__file__).with_name("kernel_main.c")
    link = [CROSS_COMPILER, "-O1", "-static", *includes, str(main), str(kernel), "-lm", "-o", str(program)]
    subprocess.run(link, check=True, capture_output=True, text=True)

    def run(*arrays: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        out = blank(shape, dtype)
        data.write_bytes(struct.pack("<i", len(arrays) + 1) + b"".join(map(record, (*arrays, out))))
        subprocess.run([EMULATOR, "-cpu", EMULATED[target.name], str(program), str(data)], check=True)
        return np.frombuffer(data.read_bytes()[-out.nbytes :], dtype).reshape(shape)

    return run


def record(array: np.ndarray) -> bytes:
    """An array as ``kernel_main.c`` reads it."""
    head = struct.pack("<3i", TYPE_CODES[array.dtype.kind], 8 * array.itemsize, array.ndim)
    return head + struct.pack(f"<{array.ndim}q", *array.shape) + array.tobytes()
