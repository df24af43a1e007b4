"""Streamed attention against ``reference.log_attention``, on the functional simulator; cycles against the RTL."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.memory_image import MemoryImage, instruction_count
from tvm_ahcq.codegen.lower.attention.plan import PictureHeads, Plan
from tvm_ahcq.codegen.lower.attention.stream import largest_plan, stream_program
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core import reference


def random_heads(count: int, sides: tuple[int, int], channels: int, relative: bool = True) -> PictureHeads:
    rng = np.random.default_rng(sum(sides) + channels)
    q, k, v = (UniformParams(bits=4, scale=0.31, zero_point=zero) for zero in (8, 6, 9))
    tables = [rng.normal(size=(2 * side - 1, channels)) if relative else None for side in sides]
    constants, rel_h, rel_w = attention_constants(
        AttentionQuantizers(q, k, v, LnqParams(bits=4, alpha=20.0, scale=0.7)),
        scale=channels**-0.5,
        head_dim=channels,
        rel_h=tables[0],
        rel_w=tables[1],
    )
    codes = rng.integers(0, 16, (3, count, sides[0] * sides[1], channels)).astype(np.uint8)
    return PictureHeads(*codes, constants, sides, rel_h, rel_w)


def expected(heads: PictureHeads) -> np.ndarray:
    """Integer sums ``(heads, tokens, d)`` of the reference."""
    found = []
    for q, k, v in zip(heads.q, heads.k, heads.v, strict=True):
        operands = reference.attention_operands(q, k, heads.constants, heads.rel_h, heads.rel_w)
        found.append(operands.astype(np.int64) @ (v.astype(np.int64) - heads.constants.v_zero))
    return np.stack(found)


def run(backend: str, name: str, heads: PictureHeads, rows: int | None) -> tuple[np.ndarray, dict[str, int]]:
    """Sums ``(heads, tokens, d)`` and all counters."""
    config, image = named(name), MemoryImage()
    program, address = stream_program(config, image, heads, rows)
    start, length = image.place(program), instruction_count(program)
    memory = image.finish()
    count, tokens, channels = heads.q.shape
    with open_device(backend, config, memory_bytes=len(memory)) as device:
        device.copy_in(0, memory)
        assert device.run(start, length).error == "none"
        counters, data = device.counters(), device.copy_out(address, heads.q.size * 4)
    sums = np.frombuffer(data, np.int32).reshape(count, channels // config.dim, tokens, config.dim)
    return sums.swapaxes(1, 2).reshape(count, tokens, channels), counters


@pytest.mark.parametrize(
    ("name", "count", "sides", "channels", "relative", "rows"),
    [
        ("sim_4x4", 2, (8, 7), 8, True, None),
        ("sim_4x4", 2, (8, 7), 8, False, None),
        ("sim_4x4", 1, (8, 8), 8, True, 4),
        ("sim_4x4", 3, (12, 12), 16, True, 12),
        ("sim_4x4", 2, (16, 16), 16, True, 16),
        ("sim_4x4", 1, (16, 16), 16, False, 16),
        ("ecp5_16x16", 2, (14, 14), 64, True, 28),
        ("ecp5_16x16", 1, (16, 64), 64, True, 16),
        ("ecp5_32x32", 1, (14, 14), 64, True, 14),
        ("zu_64x64", 2, (14, 14), 64, True, 28),
    ],
)
def test_sums_are_those_of_the_reference(
    name: str, count: int, sides: tuple[int, int], channels: int, relative: bool, rows: int | None
) -> None:
    heads = random_heads(count, sides, channels, relative)
    sums, _ = run("fsim", name, heads, rows)
    np.testing.assert_array_equal(sums, expected(heads))


def test_the_rtl_agrees_in_sums_and_in_every_counter_and_its_array_is_busy() -> None:
    heads = random_heads(2, (12, 12), 16)
    sums, counters = run("rtl", "sim_4x4", heads, 12)
    wanted, estimated = run("fsim", "sim_4x4", heads, 12)
    np.testing.assert_array_equal(sums, wanted)
    assert counters == estimated
    assert counters["array_busy"] / counters["cycles"] > 0.9


def test_only_some_tiles_leave_the_sums_of_the_others() -> None:
    config, heads, image = named("sim_4x4"), random_heads(1, (8, 8), 8), MemoryImage()
    program, address = stream_program(config, image, heads, rows=16, tiles=2)
    start, length = image.place(program), instruction_count(program)
    memory = image.finish()
    with open_device("fsim", config, memory_bytes=len(memory)) as device:
        device.copy_in(0, memory)
        assert device.run(start, length).error == "none"
        sums = np.frombuffer(device.copy_out(address, 64 * 8 * 4), np.int32).reshape(2, 64, 4)
    want = expected(heads)[0].reshape(64, 2, 4).swapaxes(0, 1)
    np.testing.assert_array_equal(sums[:, :32], want[:, :32])
    assert not sums[:, 32:].any()


def test_the_largest_plan_takes_as_many_queries_as_fit() -> None:
    assert largest_plan(named("ecp5_16x16"), random_heads(1, (14, 14), 64).stage).rows == 28
    assert largest_plan(named("ecp5_16x16"), random_heads(1, (64, 64), 64).stage).rows == 16


@pytest.mark.parametrize(
    ("sides", "channels", "rows", "message"),
    [
        ((64, 64), 16, 4, "lgt"),
        ((14, 14), 64, 28, "wgt"),
        ((14, 14), 16, 10, "Tiles of 10 queries do not divide"),
        ((14, 14), 6, 28, "blocks of 4 channels"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(sides: tuple[int, int], channels: int, rows: int, message: str) -> None:
    with pytest.raises(DeviceError, match=message):
        Plan(named("sim_4x4"), random_heads(1, sides, channels).stage, rows)
