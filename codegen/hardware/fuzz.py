"""Constrained-random programs: legal and without races, otherwise anything; or with one fault of a chosen class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, encode, instruction_count
from tvm_ahcq.codegen.isa.generated.isa import (
    Finish,
    Gemm,
    Instruction,
    Load,
    Logit,
    Memory,
    Prob,
    Scale,
    Store,
)
from tvm_ahcq.codegen.isa.memory_image import MemoryImage

DATA_BYTES = 4096
RESULT_BYTES = 4096

_TABLES: tuple[Memory, ...] = ("decode", "encode")
_LOADED: tuple[Memory, ...] = ("act", "wgt", "vec")
_SCALED: tuple[Memory, ...] = ("act", "vec", "out")
_STORED: tuple[Memory, ...] = ("vec", "out")


@dataclass(frozen=True)
class RandomProgram:
    """A memory image with a program in it.

    Attributes
    ----------
    memory : bytearray
        All of external memory.
    start, length : int
        Address of the program and number of its instructions.
    fault : str
        Class of its fault, ``"none"`` if there is none.
    """

    memory: bytearray
    start: int
    length: int
    fault: str


def random_program(config: Config, seed: int, fault: str = "none") -> RandomProgram:
    """Return a program of 20 to 50 instructions.

    Parameters
    ----------
    config : Config
        Accelerator.
    seed : int
        Of everything.
    fault : str
        ``"none"`` or a name of :data:`FAULTS`.
    """
    rng = np.random.default_rng(seed)
    image = MemoryImage()
    data, result = image.place(rng.integers(0, 256, DATA_BYTES, np.uint8)), image.reserve(RESULT_BYTES)
    tables = [_decode_values(rng), _encode_values(rng)]
    instructions: list[Instruction] = []
    for memory, values in zip(_TABLES, tables, strict=True):
        length = len(values) // 2
        instructions.append(Load(memory=memory, rows=1, length=length, address=image.place(values)))
    makers = [_load, _load, _load_table, _gemm, _gemm, _scale, _scale, _logit, _prob, _prob, _store]
    for _ in range(int(rng.integers(20, 50))):
        maker: Callable[..., Instruction] = makers[rng.integers(len(makers))]
        instructions.append(maker(rng, config, data, result))
    program = insert_dependency_tokens(instructions, config)
    if fault != "none":
        program = FAULTS[fault](rng, config, program, len(image.finish()))
    start = image.place(program)
    return RandomProgram(image.finish(), start, instruction_count(program), fault)


def _decode_values(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-256, 256, 64).astype(np.int32)


def _encode_values(rng: np.random.Generator) -> np.ndarray:
    spread = 2 ** int(rng.integers(4, 31))
    thresholds = rng.integers(-spread, spread, 32)
    if rng.integers(4):
        thresholds.sort()
    return np.concatenate([thresholds, rng.integers(0, 16, 32)]).astype(np.int32)


def _count(rng: np.random.Generator, most: int) -> int:
    return int(rng.integers(1, most + 1))


def _base(rng: np.random.Generator, depth: int, reach: int) -> int:
    """A base such that `reach` words fit; often near the start, so that operands meet."""
    room = depth - reach
    return int(rng.integers(0, min(room, 40) + 1)) if rng.integers(4) else int(rng.integers(0, room + 1))


def _load(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    memory = _LOADED[rng.integers(3)]
    rows, stride = _count(rng, 6), int(rng.integers(0, 12))
    granule = next(chunks for chunks in (1, 2, 4, 8, 16, 32) if config.words(memory, chunks))
    length = granule * _count(rng, 12)
    words = config.words(memory, length)
    assert words is not None
    pitch = 4 * int(rng.integers(0, 40))
    last = DATA_BYTES - (rows - 1) * pitch - 8 * length
    return Load(
        memory=memory,
        rows=rows,
        length=length,
        sp_stride=stride,
        stride=pitch,
        sp=_base(rng, config.depth(memory), (rows - 1) * stride + words),
        address=data + 4 * int(rng.integers(0, last // 4 + 1)),
    )


def _load_table(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    """Some entries of a table, from anywhere."""
    memory, rows, length = _TABLES[rng.integers(2)], _count(rng, 3), _count(rng, 8)
    stride, pitch = int(rng.integers(0, 9)), 4 * int(rng.integers(0, 20))
    last = DATA_BYTES - (rows - 1) * pitch - 8 * length
    return Load(
        memory=memory,
        rows=rows,
        length=length,
        sp_stride=stride,
        stride=pitch,
        sp=int(rng.integers(0, config.depth(memory) - (rows - 1) * stride - length + 1)),
        address=data + 4 * int(rng.integers(0, last // 4 + 1)),
    )


def _store(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    memory = _STORED[rng.integers(2)]
    rows, stride = _count(rng, 6), int(rng.integers(0, 12))
    granule = next(chunks for chunks in (1, 2, 4, 8, 16, 32) if config.words(memory, chunks))
    length = granule * _count(rng, 8)
    words = config.words(memory, length)
    assert words is not None
    beat = config.beat_bytes
    pitch = beat * int(rng.integers(0, 240 // beat))
    last = RESULT_BYTES - (rows - 1) * pitch - 8 * length
    return Store(
        memory=memory,
        rows=rows,
        length=length,
        sp_stride=stride,
        stride=pitch,
        sp=_base(rng, config.depth(memory), (rows - 1) * stride + words),
        address=result + beat * int(rng.integers(0, last // beat + 1)),
    )


def _gemm(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    rows, steps, blocks = _count(rng, 20), _count(rng, 4), _count(rng, 3)
    act, wgt, wgt_block, acc = (int(rng.integers(0, 20)) for _ in range(4))
    return Gemm(
        rows=rows,
        steps=steps,
        blocks=blocks,
        act_stride=act,
        wgt_stride=wgt,
        wgt_block=wgt_block,
        # blocks of one instruction do not overlap (SPEC 1)
        acc_block=rows + acc,
        decode=int(rng.integers(4)),
        transpose=int(rng.integers(2)),
        zero_vector=int(rng.integers(2)),
        accumulate=int(rng.integers(2)),
        act=_base(rng, config.act_depth, (steps - 1) * act + rows),
        wgt=_base(rng, config.wgt_depth, (steps - 1) * wgt + (blocks - 1) * wgt_block + config.dim),
        zero=_base(rng, config.wgt_depth, blocks),
        acc=_base(rng, config.acc_depth, (blocks - 1) * (rows + acc) + rows),
    )


_SCALE_REACH = 68
"""Words of the largest result of a SCALE: 20 rows in 3 blocks, 4 words apart."""


def _scale(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    memory = _SCALED[rng.integers(3)]
    rows, blocks, mode = _count(rng, 20), _count(rng, 3), int(rng.integers(3))
    acc, add = (int(rng.integers(0, 20)) for _ in range(2))
    pitch = rows + int(rng.integers(0, 5))
    reach = (blocks - 1) * pitch + rows
    dst = _base(rng, config.depth(memory), reach)
    start = _base(rng, config.vec_depth, (blocks - 1) * add + rows)
    if memory == "vec":  # what is read while it is overwritten: the same words in the same order, or others
        room = 100 if config.vec_depth >= 256 else config.vec_depth // 4  # for scales, in front of what is written
        mult, least = int(rng.integers(0, room)), room + 3
        dst, start, add = max(dst, least) if dst + reach < config.vec_depth - least else least, dst, pitch
        start = dst if rng.integers(2) else min(start, dst - reach) if dst > reach else dst
    else:
        mult = _base(rng, config.vec_depth, blocks)
    return Scale(
        memory=memory,
        rows=rows,
        blocks=blocks,
        acc_block=acc,
        mult=mult,
        add_mode=mode,
        add=start,
        add_block=add,
        dst=dst,
        dst_block=pitch,
        pre=int(rng.integers(0, 6)),
        acc=_base(rng, config.acc_depth, (blocks - 1) * acc + rows),
    )


def _logits(rng: np.random.Generator, config: Config) -> dict[str, int]:
    """Rows that lie one after the other, so that none is written twice."""
    rows, blocks = _count(rng, 16), _count(rng, 4)
    pitch = blocks + int(rng.integers(0, 3))
    return {
        "rows": rows,
        "blocks": blocks,
        "lgt_row": pitch,
        "stat": _base(rng, config.stat_depth, rows),
        "lgt": _base(rng, config.lgt_depth, (rows - 1) * pitch + blocks),
    }


def _logit(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    values = _logits(rng, config)
    rows, blocks = values["rows"], values["blocks"]
    acc, rel_w, rel_h = (int(rng.integers(0, 8)) for _ in range(3))
    values |= {
        "acc_block": acc,
        "acc": _base(rng, config.acc_depth, (blocks - 1) * acc + rows),
        "mult": int(rng.integers(-(2**21), 2**21)) >> int(rng.integers(0, 18)),
        "pre": int(rng.integers(0, 4)),
        "shift": int(rng.integers(0, 21)),
        "valid": _count(rng, config.dim),
        "first": int(rng.integers(2)),
        "rel": int(rng.integers(2)),
        "rel_w_row": rel_w,
        "rel_h_row": rel_h,
        "rel_h_lane": int(rng.integers(config.dim)),
        "rel_w": _base(rng, config.vec_depth, (rows - 1) * rel_w + blocks),
        "rel_h": _base(rng, config.vec_depth, (rows - 1) * rel_h + 1),
    }
    return Logit(**values)


def _prob(rng: np.random.Generator, config: Config, data: int, result: int) -> Instruction:
    values = _logits(rng, config)
    rows, blocks = values["rows"], values["blocks"]
    pitch = rows + int(rng.integers(0, 5))
    values |= {"dst_block": pitch, "dst": _base(rng, config.act_depth, (blocks - 1) * pitch + rows)}
    return Prob(**values)


def _insert(rng: np.random.Generator, program: bytes, bad: bytes) -> bytes:
    """The program with `bad` put in somewhere; tokens of the others stay as they are."""
    at = INSTRUCTION_BYTES * int(rng.integers(0, len(program) // INSTRUCTION_BYTES))
    return program[:at] + bad + program[at:]


def _illegal_opcode(rng: np.random.Generator, config: Config, program: bytes, size: int) -> bytes:
    opcode = (0, 6, 8, 9, 10, 11, 12, 13, 14)[rng.integers(9)]
    return _insert(rng, program, bytes([opcode]) + rng.bytes(INSTRUCTION_BYTES - 1))


def _illegal_field(rng: np.random.Generator, config: Config, program: bytes, size: int) -> bytes:
    wrong: tuple[Memory, ...] = ("out", "acc", "lgt")
    bad = [
        encode(Load(memory="act", rows=0, length=1)),
        encode(Load(memory=wrong[rng.integers(2)], rows=1, length=1)),
        encode(Store(memory="wgt", rows=1, length=1)),
        encode(Gemm(rows=1, steps=1, blocks=1), pop=["gemm"]),
        encode(Scale(memory="vec", rows=1, blocks=1, add_mode=3)),
        encode(Logit(rows=1, blocks=1, valid=0)),
        encode(Prob(rows=1, blocks=0)),
        encode(Logit(rows=1, blocks=1, valid=1))[:31] + b"\x01",
        encode(Finish(), push=["store"]),
    ]
    return _insert(rng, program, bad[rng.integers(len(bad))])


def _scratchpad_range(rng: np.random.Generator, config: Config, program: bytes, size: int) -> bytes:
    far = 65535
    bad = [
        encode(Load(memory="act", rows=1, length=1, sp=far)),
        encode(Load(memory="decode", rows=1, length=1, sp=32)),
        encode(Load(memory="wgt", rows=4095, length=1, sp_stride=far)),
        encode(Store(memory="out", rows=2, length=1, sp_stride=far)),
        encode(Gemm(rows=4095, steps=2, blocks=1, act_stride=far)),
        encode(Gemm(rows=1, steps=2, blocks=4095, wgt_block=far)),
        encode(Gemm(rows=1, steps=1, blocks=1, zero=far, zero_vector=1)),
        encode(Scale(memory="vec", rows=1, blocks=1, mult=far)),
        encode(Scale(memory="act", rows=1, blocks=1, dst=far)),
        encode(Logit(rows=1, blocks=1, valid=1, rel=1, rel_h=far)),
        encode(Logit(rows=1, blocks=1, valid=1, lgt=far)),
        encode(Prob(rows=4095, blocks=1)),
        encode(Prob(rows=1, blocks=2, dst_block=far)),
    ]
    return _insert(rng, program, bad[rng.integers(len(bad))])


def _address_range(rng: np.random.Generator, config: Config, program: bytes, size: int) -> bytes:
    load, store = Load(memory="act", rows=2, length=4), Store(memory="out", rows=2, length=4)
    end, beat = size + len(program) + 4096, config.beat_bytes
    bad = [
        encode(replace(load, address=end)),
        encode(replace(load, address=2**32 - 8)),
        encode(replace(load, address=2)),
        encode(replace(load, stride=6)),
        encode(replace(store, address=beat // 2)),
        encode(replace(store, stride=beat + beat // 2)),
        encode(replace(store, stride=end // beat * beat)),
    ]
    return _insert(rng, program, bad[rng.integers(len(bad))])


def _program_end(rng: np.random.Generator, config: Config, program: bytes, size: int) -> bytes:
    return program[:-INSTRUCTION_BYTES]


def _deadlock(rng: np.random.Generator, config: Config, program: bytes, size: int) -> bytes:
    bad = encode(Gemm(rows=1, steps=1, blocks=1), pop=["store"])
    return program[:-INSTRUCTION_BYTES] + bad + program[-INSTRUCTION_BYTES:]


FAULTS: dict[str, Callable[[np.random.Generator, Config, bytes, int], bytes]] = {
    "illegal_opcode": _illegal_opcode,
    "illegal_field": _illegal_field,
    "scratchpad_range": _scratchpad_range,
    "address_range": _address_range,
    "program_end": _program_end,
    "deadlock": _deadlock,
}
"""Class of fault -> what puts one into a program; bus errors are made by the memory."""
