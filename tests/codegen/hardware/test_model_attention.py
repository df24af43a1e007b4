"""The attention chain of the numpy model against ``reference.log_attention``."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.hardware.attention import Head, attention_program
from tvm_ahcq.codegen.hardware.model.machine import Machine
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.memory_image import MemoryImage, instruction_count
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core import reference


def random_head(seed: int, height: int, width: int, dim: int, relative: bool) -> Head:
    """Codes and constants of one attention head over ``height * width`` tokens."""
    rng = np.random.default_rng(seed)
    q, k, v = (UniformParams(bits=4, scale=0.31, zero_point=zero) for zero in (8, 6, 9))
    tables = [rng.normal(size=(2 * side - 1, dim)) for side in (height, width)] if relative else [None, None]
    probs = LnqParams(bits=4, alpha=20.0, scale=0.7)
    constants, rel_h, rel_w = attention_constants(
        AttentionQuantizers(q, k, v, probs), scale=dim**-0.5, head_dim=dim, rel_h=tables[0], rel_w=tables[1]
    )
    codes = rng.integers(0, 16, (3, height * width, dim)).astype(np.uint8)
    return Head(*codes, constants, (height, width), rel_h, rel_w)


def expected(head: Head) -> np.ndarray:
    """Integer sums ``(Nq, d)`` of the reference."""
    operands = reference.attention_operands(head.q, head.k, head.constants, head.rel_h, head.rel_w)
    return operands.astype(np.int64) @ (head.v.astype(np.int64) - head.constants.v_zero)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("sides", [(3, 3), (4, 8), (5, 7)])
def test_attention_has_the_references_integers(sides: tuple[int, int], relative: bool) -> None:
    config, head = named("sim_4x4"), random_head(sum(sides), *sides, 8, relative)
    image = MemoryImage()
    program, result = attention_program(config, image, head)
    start = image.place(program)
    memory = image.finish()
    outcome = Machine(config, memory).run(start, instruction_count(program))
    assert outcome.error == "none"
    sums = np.frombuffer(memory, np.int32, expected(head).size, result).reshape(2, -1, 4)
    np.testing.assert_array_equal(np.concatenate(list(sums), -1), expected(head))
