"""The estimate of cycles against the functional simulator, whose count is that of the RTL."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES
from tvm_ahcq.codegen.lower.address_space import move_constants
from tvm_ahcq.codegen.lower.attention.operator import lower_attention
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_linear, lower_mlp
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.runtime.weights import QLinearWeight


def constants(outputs: int, sizes: tuple[int, ...]) -> LinearLayer:
    rng, columns, groups = np.random.default_rng(0), sum(sizes), len(sizes)
    weight = QLinearWeight(
        rng.integers(0, 16, (outputs, columns)).astype(np.uint8),
        4,
        rng.uniform(1e-4, 1e-3, outputs).astype(np.float32),
        np.full(outputs, 8, np.uint8),
        np.arange(columns, dtype=np.int32),
        sizes,
        np.ones(groups, np.float32),
        np.full(groups, 7, np.int32),
    )
    return LinearLayer(weight, rng.normal(size=outputs).astype(np.float32))


def attention(config, heads: int, sides: tuple[int, int], channels: int) -> OffloadedOp:
    rng, tokens = np.random.default_rng(0), sides[0] * sides[1]
    codes = (UniformParams(bits=4, scale=0.2, zero_point=8) for _ in range(3))
    tables = [rng.normal(size=(2 * side - 1, channels)) for side in sides]
    numbers = attention_constants(
        AttentionQuantizers(*codes, RowRelativeParams(bits=4, alpha=20.0)),
        scale=channels**-0.5,
        head_dim=channels,
        rel_h=tables[0],
        rel_w=tables[1],
    )
    return lower_attention(config, (heads, tokens, tokens, channels), *numbers)


def mlp(config, rows: int) -> OffloadedOp:
    thresholds = np.linspace(-1, 1, 15, dtype=np.float32)
    operands = np.arange(16, dtype=np.uint8)
    return lower_mlp(config, rows, constants(768, (60, 132)), thresholds, operands, constants(192, (768,)))


def measured(lowered: OffloadedOp) -> dict[str, int]:
    """Counters of one run."""
    base = -(-lowered.memory.scratch_bytes // 64) * 64
    data = lowered.memory.constants + move_constants(lowered.program, base)
    size = -(-(base + len(data)) // 4096) * 4096
    with open_device("fsim", lowered.config, memory_bytes=size) as device:
        device.copy_in(base, data)
        length = len(lowered.program) // INSTRUCTION_BYTES
        assert device.run(base + len(lowered.memory.constants), length).error == "none"
        return device.counters()


ECP5, SMALL = named("ecp5_16x16"), named("sim_4x4")
CASES = {
    "wide": lambda: lower_linear(ECP5, 64, constants(1152, (300, 20, 40, 408))),
    "deep": lambda: lower_linear(ECP5, 64, constants(256, (3072,))),
    "groups": lambda: lower_linear(ECP5, 256, constants(576, (40, 60, 20, 72))),
    "few rows": lambda: lower_linear(ECP5, 8, constants(128, (192,))),
    "square": lambda: lower_linear(ECP5, 192, constants(192, (192,))),
    "small array": lambda: lower_linear(SMALL, 64, constants(96, (20, 40, 36))),
    "groups of a small array": lambda: lower_linear(SMALL, 64, constants(96, (8, 8, 8, 8))),
    "groups of a large array": lambda: lower_linear(named("ecp5_32x32"), 64, constants(256, (32, 32, 32, 32))),
    "large array": lambda: lower_linear(named("ecp5_32x32"), 128, constants(768, (300, 100, 368))),
    "two layers": lambda: mlp(ECP5, 128),
    "window": lambda: attention(ECP5, 6, (14, 14), 64),
    "small window": lambda: attention(ECP5, 12, (8, 8), 32),
    "global": lambda: attention(ECP5, 1, (32, 32), 32),
    "window of a small array": lambda: attention(SMALL, 2, (8, 8), 16),
}


@pytest.mark.parametrize("name", CASES)
def test_the_estimate_is_near_the_simulated_cycles(name):
    lowered = CASES[name]()
    found = measured(lowered)
    assert lowered.estimate.cycles == pytest.approx(found["cycles"], rel=0.15)
    assert lowered.estimate.array == found["array_busy"]
    assert lowered.estimate.bytes == 8 * (found["load_chunks"] + found["store_chunks"])


def test_layers_of_sam_b_keep_the_array_busy():
    for lowered in (CASES["wide"](), CASES["deep"]()):
        assert measured(lowered)["array_busy"] / lowered.estimate.cycles > 0.9
