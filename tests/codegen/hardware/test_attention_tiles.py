"""Tiled attention programs on the numpy model against ``reference.log_attention``."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.attention_tiles import Heads, heads_program
from tvm_ahcq.codegen.hardware.config import named
from tvm_ahcq.codegen.hardware.image import MemoryImage, instruction_count
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers import reference
from tvm_ahcq.quantizers.lnq import LnqParams
from tvm_ahcq.quantizers.log_attention import log_attention_constants
from tvm_ahcq.quantizers.uniform import UniformParams


def random_heads(seed: int, count: int, tokens: int, channels: int) -> Heads:
    rng = np.random.default_rng(seed)
    q, k, v = (UniformParams(bits=4, scale=0.31, zero_point=zero) for zero in (8, 6, 9))
    probs = LnqParams(bits=4, alpha=20.0, scale=0.7)
    constants, _, _ = log_attention_constants(q, k, v, probs, scale=channels**-0.5, head_dim=channels)
    return Heads(*rng.integers(0, 16, (3, count, tokens, channels)).astype(np.uint8), constants)


def expected(heads: Heads) -> np.ndarray:
    """Integer sums ``(heads, tokens, d)`` of the reference."""
    found = []
    for q, k, v in zip(heads.q, heads.k, heads.v, strict=True):
        operands = reference.attention_operands(q, k, heads.constants)
        found.append(operands.astype(np.int64) @ (v.astype(np.int64) - heads.constants.v_zero))
    return np.stack(found)


def sums_of(memory: bytes, address: int, heads: Heads, dim: int) -> np.ndarray:
    count, tokens, channels = heads.q.shape
    padded = -(-tokens // dim) * dim
    blocks = np.frombuffer(memory, np.int32, count * channels * padded, address)
    blocks = blocks.reshape(count, channels // dim, padded, dim)[:, :, :tokens]
    return blocks.swapaxes(1, 2).reshape(count, tokens, channels)


@pytest.mark.parametrize(
    ("name", "count", "tokens", "channels", "rows"),
    [("sim_4x4", 3, 50, 8, 16), ("sim_4x4", 2, 61, 16, 8), ("ecp5_16x16", 2, 196, 64, 16)],
)
def test_sums_are_those_of_the_reference(name: str, count: int, tokens: int, channels: int, rows: int) -> None:
    config, heads, image = named(name), random_heads(tokens, count, tokens, channels), MemoryImage()
    program, address = heads_program(config, image, heads, rows)
    start = image.place(program)
    memory = image.finish()
    assert Machine(config, memory).run(start, instruction_count(program)).error == "none"
    np.testing.assert_array_equal(sums_of(bytes(memory), address, heads, config.dim), expected(heads))


def test_a_head_that_does_not_fit_is_refused_with_the_memory_that_is_full() -> None:
    with pytest.raises(DeviceError, match="wgt"):
        heads_program(named("sim_4x4"), MemoryImage(), random_heads(0, 1, 512, 64))
