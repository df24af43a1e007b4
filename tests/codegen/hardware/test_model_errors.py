"""Errors, tokens and counters of the numpy model."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.hardware.model.machine import Machine, Result
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.encoding import instruction

LOAD = {"memory": "act", "rows": 1, "length": 1}
GEMM = {"rows": 4, "steps": 1, "blocks": 1}


def run(*instructions: bytes, faults: tuple[int, int] | None = None) -> Result:
    program = b"".join(instructions)
    memory = bytearray(program + bytes(4096 - len(program)))
    return Machine(named("sim_4x4"), memory, faults).run(0, len(instructions))


BAD = {
    "illegal_opcode": [bytes(32), (9).to_bytes(32, "little")],
    "illegal_field": [
        instruction("load", **LOAD | {"rows": 0}),
        instruction("load", **LOAD | {"memory": "out"}),
        instruction("store", memory="act", rows=1, length=1),
        instruction("load", **LOAD, push=["load"]),
        instruction("gemm", **GEMM | {"steps": 0}),
        instruction("scale", memory="vec", rows=1, blocks=1, add_mode=3),
        instruction("finish")[:31] + b"\x80",
        instruction("finish", pop=["load"]),
    ],
    "scratchpad_range": [
        instruction("load", **LOAD, sp=4093),
        instruction("load", **LOAD | {"memory": "vec"}),
        instruction("load", **LOAD | {"memory": "decode"}, sp=32),
        instruction("gemm", **GEMM, act=4093),
        instruction("gemm", **GEMM | {"steps": 4095}, wgt_stride=4),
        instruction("gemm", **GEMM, zero=2048, zero_vector=1),
        instruction("scale", memory="out", rows=257, blocks=1),
        instruction("scale", memory="vec", rows=1, blocks=1, add_mode=1, add=512),
        instruction("logit", rows=65, blocks=1, valid=4),
        instruction("prob", rows=2, blocks=1, lgt=2047, lgt_row=1),
    ],
    "address_range": [
        instruction("load", **LOAD, address=4096),
        instruction("load", **LOAD, address=2),
        instruction("store", memory="out", rows=1, length=1, address=4),
        instruction("load", **LOAD | {"rows": 4095}, stride=0xFFFFC),
    ],
}


@pytest.mark.parametrize(("error", "bad"), [(name, bad) for name, group in BAD.items() for bad in group])
def test_an_illegal_instruction_ends_the_program_after_those_before_it(error: str, bad: bytes) -> None:
    result = run(instruction("load", **LOAD), bad, instruction("load", **LOAD))
    assert (result.error, result.error_index) == (error, 1)
    assert result.counters["load_count"] == 1


def test_legal_instructions_at_the_edges_of_memories_pass() -> None:
    result = run(
        instruction("load", **LOAD, sp=4092, address=4088),
        instruction("gemm", **GEMM, act=4092, wgt=2044, acc=1020),
        instruction("finish"),
    )
    assert result.error == "none"
    assert result.counters["array_busy"] == 4


def test_a_program_without_finish_is_an_error() -> None:
    result = run(instruction("load", **LOAD))
    assert (result.error, result.error_index, result.counters["load_chunks"]) == ("program_end", 1, 1)


def test_a_token_that_never_comes_is_a_deadlock() -> None:
    result = run(instruction("gemm", **GEMM, pop=["load"]), instruction("finish"))
    assert (result.error, result.counters["gemm_count"]) == ("deadlock", 0)


def test_tokens_order_units_and_a_full_counter_stops_its_giver() -> None:
    give = instruction("load", **LOAD, push=["gemm"])
    take = instruction("gemm", **GEMM, pop=["load"])
    assert run(*[give] * 12, *[take] * 12, instruction("finish")).error == "none"
    stuck = run(*[give] * 40, instruction("finish"))
    assert (stuck.error, stuck.counters["load_count"]) == ("deadlock", 15)


def test_bus_errors_name_their_side() -> None:
    assert (
        run(instruction("load", **LOAD, address=1024), instruction("finish"), faults=(1024, 1032)).error == "bus_read"
    )
    store = instruction("store", memory="out", rows=1, length=1, address=1024)
    assert run(store, instruction("finish"), faults=(1024, 1032)).error == "bus_write"
