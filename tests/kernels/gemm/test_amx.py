"""The AMX product: its instructions are in the code, and its tile program is right where instructions are emulated.

Machines without AMX cannot run the instructions themselves; ``test_linear.py`` does on those that have it.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T

from tvm_ahcq.kernels import grouped_linear
from tvm_ahcq.kernels.gemm.amx import Tiles, amx_body
from tvm_ahcq.kernels.gemm.dispatch import linear_kernel, match_operands
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.runtime.weights import pack
from tvm_ahcq.target import resolve_target


def call(name: str, *args) -> object:
    return T.call_extern("int32", f"ahcq_tile_{name}", *args)


EMULATED = Tiles(
    lambda address: call("configure", address),
    lambda tile: call("zero", tile),
    lambda tile, address, stride: call("load", tile, address, T.int64(stride)),
    lambda acc, a, b: call("dot", acc, a, b),
    lambda tile, address, stride: call("store", tile, address, T.int64(stride)),
)


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Library with the emulated instructions, loaded for kernels to find."""
    library = tmp_path_factory.mktemp("tiles") / "libtiles.so"
    source = Path(__file__).with_name("tiles.c")
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return library


@pytest.mark.parametrize(
    ("m", "n", "sizes"),
    [(32, 32, (64,)), (33, 16, (4, 60)), (70, 37, (40, 100, 8)), (161, 80, (64, 128)), (45, 5, (132,))],
    ids=str,
)
def test_tile_program_equals_the_reference(tiles: Path, tmp_path: Path, m: int, n: int, sizes: tuple[int, ...]):
    rng, k, groups = np.random.default_rng(m), sum(sizes), len(sizes)
    workload = LinearWorkload(n, k, groups)
    operands = match_operands(m, workload, amx_body(m, workload, EMULATED), layout="vnni16")
    func = linear_kernel(m, workload, operands)
    tvm.compile(func, target=resolve_target("generic").tvm_target()).export_library(str(tmp_path / "kernel.so"))
    operands, weight = rng.integers(0, 256, (m, k), dtype=np.uint8), rng.integers(-128, 128, (n, k)).astype(np.int8)
    multiplier = rng.normal(size=(groups, n)).astype(np.float32)
    correction = rng.integers(-999, 999, (groups, n)).astype(np.int32)
    bias, bounds = rng.normal(size=n).astype(np.float32), np.cumsum([0, *sizes]).astype(np.int32)
    out = tvm.runtime.tensor(np.zeros((m, n), np.float32))
    arguments = (operands, pack(weight, "vnni16"), bounds, multiplier, correction, bias)
    tvm.runtime.load_module(str(tmp_path / "kernel.so"))["main"](*map(tvm.runtime.tensor, arguments), out)
    expected = reference.grouped_linear(operands, weight, sizes, multiplier, correction, bias)
    assert np.array_equal(out.numpy(), expected)


def test_kernel_uses_the_tile_instructions():
    target = resolve_target("amx")
    func = grouped_linear(tvm.tirx.Var("rows", "int64"), LinearWorkload(64, 192, 2), "vnni16", target)
    lines = tvm.compile(func, target=target.tvm_target()).mod.inspect_source("asm").splitlines()
    for instruction, count in {"ldtilecfg": 1, "tileloadd": 8, "tdpbusd": 8, "tilestored": 4, "vpdpbusd": 1}.items():
        assert sum(instruction in line for line in lines) >= count, instruction
