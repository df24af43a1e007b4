"""Errors, tokens and counters of the numpy model."""

from __future__ import annotations

import pytest

from tvm_ahcq.codegen.hardware.model.machine import Machine, Result
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.isa.encoding import encode
from tvm_ahcq.codegen.isa.generated.isa import Finish, Gemm, Load, Logit, Prob, Scale, Store

LOAD = {"memory": "act", "rows": 1, "length": 1}
GEMM = {"rows": 4, "steps": 1, "blocks": 1}


def run(*instructions: bytes, faults: tuple[int, int] | None = None) -> Result:
    program = b"".join(instructions)
    memory = bytearray(program + bytes(4096 - len(program)))
    return Machine(named("sim_4x4"), memory, faults).run(0, len(instructions))


BAD = {
    "illegal_opcode": [bytes(32), (9).to_bytes(32, "little")],
    "illegal_field": [
        encode(Load(**LOAD | {"rows": 0})),
        encode(Load(**LOAD | {"memory": "out"})),
        encode(Store(memory="act", rows=1, length=1)),
        encode(Load(**LOAD), push=["load"]),
        encode(Gemm(**GEMM | {"steps": 0})),
        encode(Scale(memory="vec", rows=1, blocks=1, add_mode=3)),
        encode(Finish())[:31] + b"\x80",
        encode(Finish(), pop=["load"]),
    ],
    "scratchpad_range": [
        encode(Load(**LOAD, sp=4093)),
        encode(Load(**LOAD | {"memory": "vec"})),
        encode(Load(**LOAD | {"memory": "decode"}, sp=32)),
        encode(Gemm(**GEMM, act=4093)),
        encode(Gemm(**GEMM | {"steps": 4095}, wgt_stride=4)),
        encode(Gemm(**GEMM, zero=2048, zero_vector=1)),
        encode(Scale(memory="out", rows=257, blocks=1)),
        encode(Scale(memory="vec", rows=1, blocks=1, add_mode=1, add=512)),
        encode(Logit(rows=65, blocks=1, valid=4)),
        encode(Prob(rows=2, blocks=1, lgt=2047, lgt_row=1)),
    ],
    "address_range": [
        encode(Load(**LOAD, address=4096)),
        encode(Load(**LOAD, address=2)),
        encode(Store(memory="out", rows=1, length=1, address=4)),
        encode(Load(**LOAD | {"rows": 4095}, stride=0xFFFFC)),
    ],
}


@pytest.mark.parametrize(("error", "bad"), [(name, bad) for name, group in BAD.items() for bad in group])
def test_an_illegal_instruction_ends_the_program_after_those_before_it(error: str, bad: bytes) -> None:
    result = run(encode(Load(**LOAD)), bad, encode(Load(**LOAD)))
    assert (result.error, result.error_index) == (error, 1)
    assert result.counters["load_count"] == 1


def test_legal_instructions_at_the_edges_of_memories_pass() -> None:
    result = run(
        encode(Load(**LOAD, sp=4092, address=4088)),
        encode(Gemm(**GEMM, act=4092, wgt=2044, acc=1020)),
        encode(Finish()),
    )
    assert result.error == "none"
    assert result.counters["array_busy"] == 4


def test_a_program_without_finish_is_an_error() -> None:
    result = run(encode(Load(**LOAD)))
    assert (result.error, result.error_index, result.counters["load_chunks"]) == ("program_end", 1, 1)


def test_a_token_that_never_comes_is_a_deadlock() -> None:
    result = run(encode(Gemm(**GEMM), pop=["load"]), encode(Finish()))
    assert (result.error, result.counters["gemm_count"]) == ("deadlock", 0)


def test_tokens_order_units_and_a_full_counter_stops_its_giver() -> None:
    give = encode(Load(**LOAD), push=["gemm"])
    take = encode(Gemm(**GEMM), pop=["load"])
    assert run(*[give] * 12, *[take] * 12, encode(Finish())).error == "none"
    stuck = run(*[give] * 40, encode(Finish()))
    assert (stuck.error, stuck.counters["load_count"]) == ("deadlock", 15)


def test_bus_errors_name_their_side() -> None:
    assert run(encode(Load(**LOAD, address=1024)), encode(Finish()), faults=(1024, 1032)).error == "bus_read"
    store = encode(Store(memory="out", rows=1, length=1, address=1024))
    assert run(store, encode(Finish()), faults=(1024, 1032)).error == "bus_write"
