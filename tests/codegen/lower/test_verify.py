"""The verifier against programs with one fault each, and the disassembler."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, decode, encode
from tvm_ahcq.codegen.isa.generated.isa import UNITS, Finish, Gemm, Load, Scale, Store
from tvm_ahcq.codegen.lower.disassemble import disassemble
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError

CONFIG, MEMORY = named("sim_4x4"), 4096
LOAD = Load(memory="act", rows=1, length=4, address=0)
WEIGHTS = Load(memory="wgt", rows=1, length=4, address=64)
GEMM = Gemm(rows=4, steps=1, blocks=1)
SCALE = Scale(memory="out", rows=4, blocks=1)
STORE = Store(memory="out", rows=1, length=1, address=128)
INSTRUCTIONS = [LOAD, WEIGHTS, GEMM, SCALE, STORE]


def edited(program: bytes, index: int, **changes) -> bytes:
    """The program with other fields or tokens in one instruction."""
    at = index * INSTRUCTION_BYTES
    decoded = decode(program[at : at + INSTRUCTION_BYTES])
    masks = {"pop": decoded.pop, "push": decoded.push}
    tokens = {
        kind: changes.pop(kind, [unit for bit, unit in enumerate(UNITS) if mask >> bit & 1])
        for kind, mask in masks.items()
    }
    changed = encode(replace(decoded.instruction, **changes), **tokens)
    return program[:at] + changed + program[at + INSTRUCTION_BYTES :]


def test_inserted_tokens_pass_the_verifier():
    verify(insert_dependency_tokens(INSTRUCTIONS * 9, CONFIG), CONFIG, MEMORY)


@pytest.mark.parametrize(
    ("index", "changes", "message"),
    [
        (0, {"address": 4096}, r"instruction 0 \(load\): address range"),
        (2, {"act": 4095}, r"instruction 2 \(gemm\): scratchpad range"),
        (2, {"rows": 0}, r"instruction 2 \(gemm\): illegal field"),
        (1, {"push": []}, "load gives gemm 1 tokens fewer than it takes"),
        (1, {"push": ["gemm", "store"]}, "load gives store 1 tokens more than it takes"),
    ],
)
def test_an_illegal_instruction_or_a_lost_token_is_found(index, changes, message):
    program = insert_dependency_tokens(INSTRUCTIONS, CONFIG)
    with pytest.raises(DeviceError, match=message):
        verify(edited(program, index, **changes), CONFIG, MEMORY)


def test_a_missing_order_is_a_race():
    program = insert_dependency_tokens(INSTRUCTIONS, CONFIG)
    unordered = edited(edited(program, 1, push=[]), 2, pop=[])
    with pytest.raises(DeviceError, match=r"instruction 2 \(gemm\) may run before instruction 0 is done.*act"):
        verify(unordered, CONFIG, MEMORY)


def test_waiting_for_each_other_is_a_deadlock():
    waiting = encode(LOAD, pop=["gemm"], push=["gemm"])
    waiting += encode(GEMM, pop=["load"], push=["load"]) + encode(Finish())
    with pytest.raises(DeviceError, match="deadlock"):
        verify(waiting, CONFIG, MEMORY)


def test_a_program_without_end_is_refused():
    program = insert_dependency_tokens(INSTRUCTIONS, CONFIG)
    with pytest.raises(DeviceError, match="no finish"):
        verify(program[:-INSTRUCTION_BYTES], CONFIG, MEMORY)
    with pytest.raises(DeviceError, match="not the last"):
        verify(program + program, CONFIG, MEMORY)


def test_the_listing_names_tokens_memories_and_fields():
    lines = list(disassemble(insert_dependency_tokens(INSTRUCTIONS, CONFIG) + bytes(INSTRUCTION_BYTES)))
    assert len(lines) == 7
    assert lines[1] == "     1  <     >G    load.wgt      rows=1 length=4 address=0x40"
    assert lines[2].split() == ["2", "<L", ">V", "gemm", "rows=4", "steps=1", "blocks=1"]
    assert lines[5].split()[-1] == "finish" and lines[6].endswith("illegal instruction")
