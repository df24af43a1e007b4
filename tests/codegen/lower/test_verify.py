"""The verifier against programs with one fault each, and the disassembler."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, fields_of, instruction
from tvm_ahcq.codegen.lower.disassemble import disassemble
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError

CONFIG, MEMORY = named("sim_4x4"), 4096
LOAD = {"memory": "act", "rows": 1, "length": 4, "address": 0}
WEIGHTS = {"memory": "wgt", "rows": 1, "length": 4, "address": 64}
GEMM = {"rows": 4, "steps": 1, "blocks": 1}
SCALE = {"memory": "out", "rows": 4, "blocks": 1}
STORE = {"memory": "out", "rows": 1, "length": 1, "address": 128}
ENTRIES = [("load", LOAD), ("load", WEIGHTS), ("gemm", GEMM), ("scale", SCALE), ("store", STORE)]


def edited(program: bytes, index: int, **changes) -> bytes:
    """The program with other fields in one instruction."""
    at = index * INSTRUCTION_BYTES
    name, values = fields_of(program[at : at + INSTRUCTION_BYTES])
    tokens = {
        kind: [unit for bit, unit in enumerate(("load", "gemm", "vector", "store")) if values[kind] >> bit & 1]
        for kind in ("pop", "push")
    }
    given = {key: value for key, value in values.items() if key not in ("opcode", "reserved", "pop", "push")}
    return program[:at] + instruction(name, **(tokens | given | changes)) + program[at + INSTRUCTION_BYTES :]


def test_inserted_tokens_pass_the_verifier():
    verify(insert_dependency_tokens(ENTRIES * 9, CONFIG), CONFIG, MEMORY)


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
    program = insert_dependency_tokens(ENTRIES, CONFIG)
    with pytest.raises(DeviceError, match=message):
        verify(edited(program, index, **changes), CONFIG, MEMORY)


def test_a_missing_order_is_a_race():
    program = insert_dependency_tokens(ENTRIES, CONFIG)
    unordered = edited(edited(program, 1, push=[]), 2, pop=[])
    with pytest.raises(DeviceError, match=r"instruction 2 \(gemm\) may run before instruction 0 is done.*act"):
        verify(unordered, CONFIG, MEMORY)


def test_waiting_for_each_other_is_a_deadlock():
    waiting = instruction("load", pop=["gemm"], push=["gemm"], **LOAD)
    waiting += instruction("gemm", pop=["load"], push=["load"], **GEMM) + instruction("finish")
    with pytest.raises(DeviceError, match="deadlock"):
        verify(waiting, CONFIG, MEMORY)


def test_a_program_without_end_is_refused():
    program = insert_dependency_tokens(ENTRIES, CONFIG)
    with pytest.raises(DeviceError, match="no finish"):
        verify(program[:-INSTRUCTION_BYTES], CONFIG, MEMORY)
    with pytest.raises(DeviceError, match="not the last"):
        verify(program + program, CONFIG, MEMORY)


def test_the_listing_names_tokens_memories_and_fields():
    lines = list(disassemble(insert_dependency_tokens(ENTRIES, CONFIG) + bytes(INSTRUCTION_BYTES)))
    assert len(lines) == 7
    assert lines[1] == "     1  <     >G    load.wgt      rows=1 length=4 address=0x40"
    assert lines[2].split() == ["2", "<L", ">V", "gemm", "rows=4", "steps=1", "blocks=1"]
    assert lines[5].split()[-1] == "finish" and lines[6].endswith("illegal instruction")
