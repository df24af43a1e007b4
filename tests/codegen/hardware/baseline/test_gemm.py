"""Tiles on the floating-point core: results bit by bit, cycles by the formula."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.baseline import model, sources
from tvm_ahcq.codegen.hardware.baseline.simulator import HARNESS, Tile, simulate
from tvm_ahcq.errors import DeviceError

FP32 = model.Core("fp32", 5, 2)
BF16 = model.Core("bf16", 13)
TILES = [(16, 20), (13, 25), (1, 4), (24, 2), (15, 1), (40, 15)]


def tile(core: model.Core, rng: np.random.Generator, rows: int, steps: int) -> Tile:
    """Random operands and weights, with some of extreme size."""
    mask = np.uint32(0xFFFFFFFF if core.format == "fp32" else 0xFFFF0000)
    shapes = (rows, steps), (steps, core.lanes)
    scale = [rng.choice([1.0, 1e-20, 1e19], shape, p=[0.9, 0.05, 0.05]) for shape in shapes]
    found = [(rng.normal(size=shape) * scale[i]).astype(np.float32) for i, shape in enumerate(shapes)]
    return found[0].view(np.uint32) & mask, found[1].view(np.uint32) & mask


@pytest.fixture(scope="module", params=[FP32, BF16], ids=["fp32", "bf16"])
def core(request: pytest.FixtureRequest) -> model.Core:
    return request.param


@pytest.fixture(scope="module")
def program(build: Callable[..., Path], core: model.Core) -> Path:
    return build("fp_gemm", HARNESS, (), tuple(f"-G{name}={value}" for name, value in core.parameters().items()))


@pytest.mark.parametrize("idle", [0, 70])
def test_results_are_those_of_the_model_whatever_memory_does(program: Path, core: model.Core, idle: int) -> None:
    rng = np.random.default_rng(idle)
    tiles = [tile(core, rng, *size) for size in TILES]
    _, found = simulate(program, core, tiles, idle)
    wanted = np.concatenate([model.gemm(*one).ravel() for one in tiles])
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    "sizes",
    [
        [(16, 20)],
        [(64, 3)],
        [(64, 1)],
        [(6, 9)],
        [(2, 7)],
        [(32, 14), (32, 14)],
        [(32, 5), (32, 5), (20, 2)],
        [(200, 30), (150, 20)],
        [(512, 16)],
    ],
    ids=str,
)
def test_cycles_are_those_of_the_formula(program: Path, core: model.Core, sizes: list[tuple[int, int]]) -> None:
    rng = np.random.default_rng(0)
    found, _ = simulate(program, core, [tile(core, rng, *size) for size in sizes], 0)
    assert found == model.cycles(core, sizes)


def test_lint_is_clean(core: model.Core) -> None:
    assert "%Warning" not in sources.lint(core)


def test_tiles_of_a_gemm_cover_it_once() -> None:
    tiles = model.gemm_tiles(FP32, 1000, 64, 30)
    blocks = 30 // FP32.lanes
    assert sum(rows for rows, _ in tiles) == blocks * 1000
    assert {depth for _, depth in tiles} == {64}
    assert max(rows for rows, _ in tiles) <= model.MAX_ROWS


def test_a_core_that_cannot_be_is_refused() -> None:
    with pytest.raises(DeviceError, match="fp64"):
        model.Core("fp64", 8)
    with pytest.raises(DeviceError, match="lanes"):
        model.Core("fp32", 1000)
    with pytest.raises(DeviceError, match="16384 products"):
        model.gemm_tiles(FP32, 1, 16384, 1)
