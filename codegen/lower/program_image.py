"""All offloaded operators of a module as the bytes that ``runtime/accelerator_program.cc`` reads."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Hashable, Mapping

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES

from .address_space import move_constants
from .offloaded_op import InputLayout, OffloadedOp, OutputLayout
from .verify import verify

_MAGIC, _VERSION, _ALIGNMENT = b"AHCQACC\0", 4, 64


def program_image(config: Config, functions: Mapping[str, OffloadedOp]) -> bytes:
    """Return programs, constants and layouts of tensors as bytes; those of equal operators are there once.

    Every program is verified first.

    Raises
    ------
    DeviceError
        If a program fails the verifier, or all of them together do not fit 32 bits of address.
    """
    scratch = max((lowered.memory.scratch_bytes for lowered in functions.values()), default=0)
    scratch += -scratch % _ALIGNMENT
    pieces: list[bytes] = []
    size, table = 0, []
    placed: dict[tuple[bytes, bytes], tuple[int, bytes]] = {}
    for name, lowered in functions.items():
        constants = lowered.memory.constants
        same = constants, lowered.program
        if same not in placed:
            program = move_constants(lowered.program, scratch + size)
            placed[same] = size + len(constants), program
            size += len(constants) + len(program) + -len(program) % _ALIGNMENT
            pieces += [constants, program, bytes(-len(program) % _ALIGNMENT)]
        table.append((name, *placed[same], lowered))
    ordered: set[Hashable] = set()  # addresses of constants move together: what is no race stays none
    for _, _, program, lowered in table:
        verify(program, config, scratch + size, order=lowered.token_key not in ordered)
        ordered |= {lowered.token_key} - {None}
    body = struct.pack("<I", config.hash) + _text(config.name) + struct.pack("<QI", scratch, len(table))
    body += b"".join(_function(*entry) for entry in table) + b"".join(pieces)
    return _MAGIC + struct.pack("<II", _VERSION, zlib.crc32(body)) + body


def _function(name: str, at: int, program: bytes, lowered: OffloadedOp) -> bytes:
    runs = -(-lowered.output.total // (lowered.output.batch * lowered.output.rows))
    sizes = len(program) // INSTRUCTION_BYTES, runs, lowered.batched, len(lowered.inputs)
    head = _text(name) + struct.pack("<Q4I", at, *sizes)
    return head + b"".join(map(_input, lowered.inputs)) + _output(lowered.output)


def _text(text: str) -> bytes:
    return struct.pack("<I", len(text.encode())) + text.encode()


def _input(given: InputLayout) -> bytes:
    blocks = len(given.channel_at) // given.dim
    sizes = (given.total, given.batch, given.rows, given.channels, blocks, given.dim, len(given.row_at))
    places = np.concatenate([given.row_at, given.channel_at]).astype("<i4")
    codes = struct.pack("<I", len(given.code_of)) + given.code_of.astype(np.uint8).tobytes()
    return struct.pack("<Q7I", given.address, *sizes) + places.tobytes() + codes


def _output(given: OutputLayout) -> bytes:
    groups, channels = given.multiplier.shape
    sizes = (given.total, given.batch, given.rows, channels, given.blocks, given.dim, given.words)
    head = struct.pack("<Q7I", given.address, *sizes) + struct.pack("<2I", len(given.row_at), groups)
    fields = b"".join(struct.pack("<3I", field.word, field.offset, field.bits) for field in given.fields)
    numbers = given.multiplier.astype("<f4").tobytes() + given.bias.astype("<f4").tobytes()
    correction = b"" if given.correction is None else given.correction.astype("<i4").tobytes()
    numbers += struct.pack("<I", bool(correction)) + correction + struct.pack("<i", given.divisor)
    return head + given.row_at.astype("<i4").tobytes() + fields + numbers
