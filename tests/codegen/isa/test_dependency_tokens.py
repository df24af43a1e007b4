"""Automatic tokens: where they are put, and that the result is that of one instruction at a time."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.encoding import decode
from tvm_ahcq.codegen.isa.generated.isa import Gemm, Instruction, Load
from tvm_ahcq.errors import DeviceError

CONFIG = named("sim_4x4")
LOAD_ACT = Load(memory="act", rows=1, length=1)
LOAD_VEC = Load(memory="vec", rows=1, length=2)
GEMM = Gemm(rows=4, steps=1, blocks=1)
LOAD_BIT, GEMM_BIT = 1, 2


def masks(instructions: list[Instruction]) -> list[tuple[int, int]]:
    program = insert_dependency_tokens(instructions, CONFIG)
    decoded = [decode(program[at : at + 32]) for at in range(0, len(program), 32)]
    return [(each.pop, each.push) for each in decoded]


def test_a_reader_waits_for_the_writer_of_its_words() -> None:
    assert masks([LOAD_ACT, GEMM]) == [(0, GEMM_BIT), (LOAD_BIT, 0), (0, 0)]


def test_a_writer_waits_for_the_reader_of_the_words_before() -> None:
    assert masks([GEMM, LOAD_ACT]) == [(0, LOAD_BIT), (GEMM_BIT, 0), (0, 0)]


def test_other_memories_and_other_words_run_side_by_side() -> None:
    elsewhere = Load(memory="act", rows=1, length=1, sp=4)
    assert masks([LOAD_VEC, elsewhere, GEMM]) == [(0, 0)] * 4


def test_one_token_stands_for_everything_before_it() -> None:
    second = Load(memory="wgt", rows=1, length=1)
    assert masks([LOAD_ACT, second, GEMM, GEMM]) == [(0, 0), (0, GEMM_BIT), (LOAD_BIT, 0), (0, 0), (0, 0)]


def test_too_many_tokens_under_way_are_refused() -> None:
    gives = [Load(memory="act", rows=1, length=1, sp=4 * i) for i in range(20)]
    takes = [Gemm(rows=4, steps=1, blocks=1, act=4 * i) for i in range(20)]
    with pytest.raises(DeviceError, match="move the instructions of gemm forward"):
        insert_dependency_tokens([*gives, *takes], CONFIG)
