"""One attention head as a program: QK^T, relative positions, softmax codes, PV (SPEC 5).

Keys of one picture row are padded to whole blocks of `dim`, so that the relative position of a block is one number for
the row and a vector for the columns. Relative positions are computed for every distance, written to memory, and read
back with a pitch that slides the window of each query into place: the DMA does the indexing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.layout import code_blocks, decode_table, encode_table, pack_codes, planes, weight_tiles
from tvm_ahcq.codegen.isa.memory_image import MemoryImage, SerialProgram
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.core.reference import AttentionConstants

_QUERIES, _PROBABILITIES, _QUERIES_HIGH = range(3)
"""Decode tables; the third is 16 times the first, for the high half of an int8 weight."""


@dataclass(frozen=True)
class Head:
    """Inputs of one head.

    Attributes
    ----------
    q, k, v : numpy.ndarray
        ``(height * width, d)`` uint8 codes of 4 bits.
    constants : AttentionConstants
        Of the site.
    sides : (int, int)
        Height and width of the picture (or window) that the tokens tile.
    rel_h, rel_w : numpy.ndarray or None
        ``(2 height - 1, d)`` and ``(2 width - 1, d)`` int8.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    constants: AttentionConstants
    sides: tuple[int, int]
    rel_h: np.ndarray | None = None
    rel_w: np.ndarray | None = None


@dataclass(frozen=True)
class _Layout:
    """Where things lie in the scratchpads, in words."""

    dim: int
    rows: int
    row_blocks: int
    height: int

    @property
    def keys(self) -> int:
        return self.height * self.row_blocks * self.dim


def attention_program(config: Config, image: MemoryImage, head: Head) -> tuple[bytes, int]:
    """Program for one head that fits the scratchpads at once, and the address of its result.

    Parameters
    ----------
    config : Config
        Accelerator.
    image : MemoryImage
        Receives operands and result.
    head : Head
        Inputs.

    Returns
    -------
    program : bytes
    address : int
        Of the int32 sums ``(d / dim, height * width, dim)``.

    Raises
    ------
    DeviceError
        If the constants do not fit the accelerator's fields.
    """
    height, width = head.sides
    dim, channels = config.dim, head.q.shape[1]
    if channels % dim:
        raise DeviceError(f"{channels} channels a head; the array needs a multiple of {dim}: pad the head.")
    c, at = head.constants, _Layout(dim, height * width, -(-width // dim), height)
    program = SerialProgram()
    _tables(program, image, c)
    _codes(program, image, "act", code_blocks(head.q, dim))
    _codes(program, image, "wgt", _padded_keys(head.k, at, width))
    value_at = channels // dim * at.keys
    _codes(program, image, "wgt", _padded_keys(head.v, at, width), sp=value_at)
    relative = head.rel_h is not None and head.rel_w is not None
    if relative:
        _relative_positions(program, image, head, at)
    _logits(program, head, at, relative)
    steps = at.keys // dim
    program.add("expsum", rows=at.rows, blocks=steps, lgt_row=steps)
    probs_at = channels // dim * at.rows
    program.add("prob", rows=at.rows, blocks=steps, lgt_row=steps, dst=probs_at, dst_block=at.rows)
    blocks = channels // dim
    program.add(
        "gemm",
        rows=at.rows,
        steps=steps,
        blocks=blocks,
        act=probs_at,
        act_stride=at.rows,
        wgt=value_at,
        wgt_stride=dim,
        wgt_block=at.keys,
        zero=c.v_zero,
        acc_block=at.rows,
        decode=_PROBABILITIES,
    )
    _numbers(program, image, "vec", np.ones(blocks * dim))
    program.add("scale", memory="vec", rows=at.rows, blocks=blocks, acc_block=at.rows, dst=blocks, dst_block=at.rows)
    address = image.reserve(channels * at.rows * 4)
    program.add("store", memory="vec", rows=1, length=channels * at.rows // 2, sp=blocks, address=address)
    return program.finish(), address


def _tables(program: SerialProgram, image: MemoryImage, c: AttentionConstants) -> None:
    """Decode tables of queries and probabilities, and the encoder of ``-u``: u <= L exactly if -u > -L - 1."""
    query = np.arange(16) - c.q_zero
    tables = {_QUERIES: query, _PROBABILITIES: c.table, _QUERIES_HIGH: 16 * query}
    entries = np.concatenate([decode_table(tables[number]) for number in range(3)])
    _numbers(program, image, "decode", entries)
    _numbers(program, image, "encode", encode_table(-c.log_thresholds - 1, np.arange(len(c.table))))


def _logits(program: SerialProgram, head: Head, at: _Layout, relative: bool) -> None:
    """QK^T of one picture row of keys at a time, and its logits."""
    c, (height, width), dim = head.constants, head.sides, at.dim
    columns = -(-height // dim)
    for row in range(height):
        program.add(
            "gemm",
            rows=at.rows,
            steps=head.q.shape[1] // dim,
            blocks=at.row_blocks,
            act_stride=at.rows,
            wgt=row * at.row_blocks * dim,
            wgt_stride=at.keys,
            wgt_block=dim,
            zero=c.k_zero,
            transpose=1,
            acc_block=at.rows,
            decode=_QUERIES,
        )
        rel = {
            "rel": 1,
            "rel_w": columns * at.rows,
            "rel_w_row": at.row_blocks,
            "rel_h": row // dim,
            "rel_h_row": columns,
            "rel_h_lane": row % dim,
        }
        program.add(
            "logit",
            rows=at.rows,
            blocks=at.row_blocks,
            acc_block=at.rows,
            lgt=row * at.row_blocks,
            lgt_row=height * at.row_blocks,
            mult=c.qk_multiplier,
            pre=c.qk_shift,
            shift=c.shift,
            valid=width - (at.row_blocks - 1) * dim,
            first=int(row == 0),
            **(rel if relative else {}),
        )


def _relative_positions(program: SerialProgram, image: MemoryImage, head: Head, at: _Layout) -> None:
    """Leaves in ``vec``, for every query, its height terms and behind those of all queries its width terms."""
    assert head.rel_h is not None and head.rel_w is not None
    height, width = head.sides
    columns = -(-height // at.dim)
    multipliers = head.constants.rel_h_multiplier, head.constants.rel_w_multiplier
    pitches, tables = [], []
    for table, multiplier in zip((head.rel_h, head.rel_w), multipliers, strict=True):
        address, pitch = _all_distances(program, image, head, at, table[::-1], multiplier)
        tables.append(address)
        pitches.append(pitch)
    for y in range(height):
        start = tables[0] + y * width * pitches[0] + 4 * (height - 1 - y)
        program.add(
            "load",
            memory="vec",
            rows=width,
            length=columns * at.dim // 2,
            sp=columns * y * width,
            sp_stride=columns,
            address=start,
            stride=pitches[0],
        )
        start = tables[1] + y * width * pitches[1] + 4 * (width - 1)
        program.add(
            "load",
            memory="vec",
            rows=width,
            length=at.row_blocks * at.dim // 2,
            sp=columns * at.rows + at.row_blocks * y * width,
            sp_stride=at.row_blocks,
            address=start,
            stride=pitches[1] - 4,
        )


def _all_distances(
    program: SerialProgram, image: MemoryImage, head: Head, at: _Layout, table: np.ndarray, multiplier: int
) -> tuple[int, int]:
    """Query times every row of an int8 table, scaled, in memory; address and pitch in bytes of a query."""
    channels, dim = table.shape[1], at.dim
    blocks, steps = -(-len(table) // dim), channels // dim
    weights_at = 2 * channels // dim * at.keys
    high, low = planes(table.astype(np.int16))
    halves = (high + 8, low)
    tiles = [weight_tiles(half.astype(np.uint8), dim) for half in halves]
    _codes(program, image, "wgt", np.stack(tiles), sp=weights_at)
    for plane, (decode, zero) in enumerate(((_QUERIES_HIGH, 8), (_QUERIES, 0))):
        program.add(
            "gemm",
            rows=at.rows,
            steps=steps,
            blocks=blocks,
            act_stride=at.rows,
            wgt_stride=dim,
            wgt=weights_at + plane * blocks * steps * dim,
            wgt_block=steps * dim,
            zero=zero,
            acc_block=at.rows,
            decode=decode,
            accumulate=plane,
        )
    _numbers(program, image, "vec", np.full(blocks * dim, multiplier))
    program.add(
        "scale",
        memory="vec",
        rows=at.rows,
        blocks=blocks,
        acc_block=at.rows,
        dst=blocks,
        dst_block=at.rows,
        pre=head.constants.rel_shift,
    )
    # behind the last query the widest window reads past its row: room for one more
    pitch = 4 * blocks * dim
    address = image.reserve((at.rows + 1) * pitch)
    for block in range(blocks):
        program.add(
            "store",
            memory="vec",
            rows=at.rows,
            length=dim // 2,
            sp=blocks + block * at.rows,
            sp_stride=1,
            address=address + 4 * block * dim,
            stride=pitch,
        )
    return address, pitch


def _padded_keys(codes: np.ndarray, at: _Layout, width: int) -> np.ndarray:
    """``(height * width, d)`` codes in blocks ``(d / dim, keys, dim)``, each picture row padded to whole blocks."""
    rows = np.zeros((at.height, at.row_blocks * at.dim, codes.shape[1]), np.uint8)
    rows[:, :width] = codes.reshape(at.height, width, -1)
    return code_blocks(rows.reshape(at.keys, -1), at.dim)


def _codes(program: SerialProgram, image: MemoryImage, memory: str, codes: np.ndarray, sp: int = 0) -> None:
    data = pack_codes(codes)
    data += bytes(-len(data) % 8)
    program.add("load", memory=memory, rows=1, length=len(data) // 8, sp=sp, address=image.place(data))


def _numbers(program: SerialProgram, image: MemoryImage, memory: str, values: np.ndarray) -> None:
    data = np.asarray(values, np.int32).tobytes()
    program.add("load", memory=memory, rows=1, length=len(data) // 8, address=image.place(data))
