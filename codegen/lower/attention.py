"""Integer attention as instructions: heads of any number of tokens, with relative positions or without.

Queries are taken in tiles, keys in pieces (rows of the picture where there are relative positions). The logits of a
tile stay on the chip, then its probabilities and their products with the values. Keys and values stay in ``wgt`` where
a head fits; otherwise each tile loads them again. Relative positions are indexed by the DMA, as in
:mod:`..hardware.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..hardware.generated.isa import LIMITS
from ..hardware.layout import decode_table, encode_table, pack_codes, weight_tiles
from ..hardware.schedule import Entry
from .attention_tiling import CONSTANTS, AttentionTiling
from .memory import DeviceMemory
from .rings import Rings

_QUERIES, _PROBABILITIES, _QUERIES_HIGH = range(3)
"""Decode tables; the third is 16 times the first, for the high half of an int8 weight."""

_ONE, _REL_H, _REL_W = range(CONSTANTS)
"""Words of ``vec`` with a scale of 1 and those of relative positions."""


def attention_entries(
    memory: DeviceMemory, tiling: AttentionTiling, sources: tuple[int, int, int], result: int
) -> list[Entry]:
    """Instructions of an attention, without tokens.

    Parameters
    ----------
    memory : DeviceMemory
        Receives tables.
    tiling : AttentionTiling
        Heads and sizes.
    sources : (int, int, int)
        Addresses of queries ``(heads, channels / Dim, padded queries, Dim)``, and of keys and values in the order of
        :meth:`AttentionTiling.key_rows`, as 4-bit codes.
    result : int
        Address of int32 sums ``(heads, channels / Dim, padded queries, Dim)``.
    """
    return list(_Lowering(memory, tiling, sources, result).entries())


class _Lowering:
    def __init__(
        self, memory: DeviceMemory, tiling: AttentionTiling, sources: tuple[int, int, int], result: int
    ) -> None:
        self.tiling, self.stage, self.config = tiling, tiling.stage, tiling.config
        self.q, self.k, self.v = sources
        self.result, self.rings = result, Rings()
        self.word, self.rows, self.parts = self.config.dim // 2, tiling.rows, tiling.parts
        c = self.stage.constants
        query = np.arange(16) - c.q_zero
        decode = [decode_table(query), decode_table(c.table), decode_table(16 * query)]
        self.decode = memory.constant(np.concatenate(decode))
        self.encode = memory.constant(encode_table(-c.log_thresholds - 1, np.arange(len(c.table))))
        scales = np.array([1, c.rel_h_multiplier, c.rel_w_multiplier]) & ((1 << LIMITS["mantissa_bits"]) - 1)
        self.scales = memory.constant(np.repeat(scales, self.config.dim).astype(np.int32))
        if tiling.relative:
            self._place_tables(memory)

    def _place_tables(self, memory: DeviceMemory) -> None:
        """Tables of relative positions, reversed, in halves; and room for the products of a tile with them."""
        packed = []
        for table in (self.stage.rel_h, self.stage.rel_w):
            assert table is not None
            reverse = table[::-1]
            halves = ((reverse.astype(np.int16) >> 4) + 8, reverse & 15)
            packed += [pack_codes(weight_tiles(half.astype(np.uint8), self.config.dim)) for half in halves]
        self.tables = memory.constant(b"".join(packed))
        # behind the last query the widest window reads past its row: room for one more
        pitches = [4 * blocks * self.config.dim for blocks in self.tiling.distance_blocks]
        self.distances = [[memory.scratch((self.rows + 1) * pitch) for pitch in pitches] for _ in range(2)]

    def entries(self) -> Iterator[Entry]:
        """All of it."""
        tiling, config = self.tiling, self.config
        yield "load", {"memory": "decode", "rows": 1, "length": 24, "address": self.decode}
        yield "load", {"memory": "encode", "rows": 1, "length": 32, "address": self.encode}
        length = CONSTANTS * config.dim // 2
        yield "load", {"memory": "vec", "rows": 1, "length": length, "address": self.scales}
        if tiling.relative:
            chunks = tiling.table_words * self.word // 8
            yield "load", {"memory": "wgt", "rows": 1, "length": chunks, "address": self.tables}
        for head in range(self.stage.heads):
            base = self._load_head(head) if tiling.resident else None
            if base is not None:
                yield from base[1]
            for first in range(0, tiling.padded_queries, self.rows):
                count = min(self.rows, tiling.padded_queries - first)
                yield from self._tile(head, first, count, None if base is None else base[0])

    def _load_head(self, head: int) -> tuple[int, list[Entry]]:
        """All keys and values of a head, and the word of ``wgt`` where they begin."""
        keys = self.tiling.padded_keys
        base = self.tiling.table_words + self.rings.slot("head", self.tiling.resident) * 2 * self.parts * keys
        loads = [self._load_keys(at, head, 0, self.tiling.key_blocks, base + i * self.parts * keys)
                 for i, at in enumerate((self.k, self.v))]  # fmt: skip
        return base, loads

    def _load_keys(self, source: int, head: int, first: int, blocks: int, at: int) -> Entry:
        """Some key blocks of keys or values."""
        keys, dim = self.tiling.padded_keys, self.config.dim
        return "load", {
            "memory": "wgt", "rows": self.parts, "length": blocks * dim * self.word // 8, "sp": at,
            "sp_stride": blocks * dim, "address": source + (head * self.parts * keys + first * dim) * self.word,
            "stride": keys * self.word,
        }  # fmt: skip

    def _stream(self, source: int, head: int, first: int, blocks: int) -> tuple[Entry, int]:
        """A piece of keys or values into the next of two places."""
        size = self.tiling.stream_slot * self.parts * self.config.dim
        at = self.tiling.table_words + self.rings.slot("stream", 2) * size
        return self._load_keys(source, head, first, blocks, at), at

    def _tile(self, head: int, first: int, count: int, base: int | None) -> Iterator[Entry]:
        """One tile of queries from beginning to end."""
        tiling = self.tiling
        act = self.rings.slot("queries", 2) * self.parts * self.rows
        yield "load", {
            "memory": "act", "rows": self.parts, "length": count * self.word // 8, "sp": act, "sp_stride": self.rows,
            "address": self.q + (head * self.parts * tiling.padded_queries + first) * self.word,
            "stride": tiling.padded_queries * self.word,
        }  # fmt: skip
        if tiling.relative:
            yield from self._relative(first, count, act)
        for number, piece in enumerate(tiling.pieces):
            yield from self._logits(head, count, act, base, piece, number == 0)
        rows = {"rows": count, "lgt_row": tiling.key_blocks}
        yield "expsum", {**rows, "blocks": tiling.key_blocks}
        yield from self._values(head, count, base)
        yield from self._finish(head, first, count)

    def _logits(
        self, head: int, count: int, act: int, base: int | None, piece: tuple[int, int, int], first: bool
    ) -> Iterator[Entry]:
        """Products of the queries with one piece of keys, and their logits."""
        block, blocks, valid = piece
        dim, c = self.config.dim, self.stage.constants
        if base is None:
            load, wgt = self._stream(self.k, head, block, blocks)
            stride = blocks * dim
            yield load
        else:
            wgt, stride = base + block * dim, self.tiling.padded_keys
        largest = max(size for _, size, _ in self.tiling.pieces)
        acc = (self.parts + self.rings.slot("acc", self.tiling.acc_slots) * largest) * self.rows
        yield "gemm", {
            "rows": count, "steps": self.parts, "blocks": blocks, "act": act, "act_stride": self.rows, "wgt": wgt,
            "wgt_stride": stride, "wgt_block": dim, "zero": c.k_zero, "transpose": 1, "acc": acc,
            "acc_block": self.rows, "decode": _QUERIES,
        }  # fmt: skip
        relative = {}
        if self.tiling.relative:
            columns, width = self.tiling.windows
            row = block // blocks
            relative = {
                "rel": 1, "rel_w": CONSTANTS + columns * self.rows, "rel_w_row": width,
                "rel_h": CONSTANTS + row // dim, "rel_h_row": columns, "rel_h_lane": row % dim,
            }  # fmt: skip
        yield "logit", {
            "rows": count, "blocks": blocks, "acc": acc, "acc_block": self.rows, "lgt": block,
            "lgt_row": self.tiling.key_blocks, "mult": c.qk_multiplier, "pre": c.qk_shift, "shift": c.shift,
            "valid": valid, "first": int(first), **relative,
        }  # fmt: skip

    def _values(self, head: int, count: int, base: int | None) -> Iterator[Entry]:
        """Probabilities, a chunk of keys at a time, and the sums of the values that they weigh."""
        tiling, dim = self.tiling, self.config.dim
        size = tiling.act_slot if base is not None else min(tiling.act_slot, tiling.stream_slot)
        for first in range(0, tiling.key_blocks, size):
            blocks = min(size, tiling.key_blocks - first)
            act = (2 * self.parts + self.rings.slot("probabilities", 2) * tiling.act_slot) * self.rows
            yield "prob", {
                "rows": count, "blocks": blocks, "lgt": first, "lgt_row": tiling.key_blocks, "dst": act,
                "dst_block": self.rows,
            }  # fmt: skip
            if base is None:
                load, wgt = self._stream(self.v, head, first, blocks)
                block = blocks * dim
                yield load
            else:
                wgt, block = base + (self.parts * tiling.key_blocks + first) * dim, tiling.padded_keys
            yield "gemm", {
                "rows": count, "steps": blocks, "blocks": self.parts, "act": act, "act_stride": self.rows, "wgt": wgt,
                "wgt_stride": dim, "wgt_block": block, "zero": self.stage.constants.v_zero, "acc": 0,
                "acc_block": self.rows, "decode": _PROBABILITIES, "accumulate": int(first > 0),
            }  # fmt: skip

    def _slot(self) -> int:
        """A place for one column block of a tile in ``vec``."""
        fixed = CONSTANTS + sum(self.tiling.windows) * self.rows
        return fixed + self.rings.slot("vec", self.tiling.vec_slots) * self.rows

    def _finish(self, head: int, first: int, count: int) -> Iterator[Entry]:
        """Sums of a tile to memory."""
        dim = self.config.dim
        for part in range(self.parts):
            slot = self._slot()
            yield "scale", {
                "memory": "vec", "rows": count, "blocks": 1, "acc": part * self.rows, "mult": _ONE, "dst": slot,
            }  # fmt: skip
            at = ((head * self.parts + part) * self.tiling.padded_queries + first) * dim * 4
            yield "store", {"memory": "vec", "rows": 1, "length": count * dim // 2, "sp": slot,
                            "address": self.result + at}  # fmt: skip

    def _relative(self, first: int, count: int, act: int) -> Iterator[Entry]:
        """Leaves in ``vec``, for every query, its height terms and behind those of all queries its width terms."""
        tiling, dim = self.tiling, self.config.dim
        height, width = tiling.sides
        columns, row_blocks = tiling.windows
        places, wgt = self.distances[self.rings.slot("distances", 2)], 0
        for place, blocks, scale in zip(places, tiling.distance_blocks, (_REL_H, _REL_W), strict=True):
            yield from self._distances(place, count, act, wgt, blocks, scale)
            wgt += 2 * blocks * self.parts * dim
        pitch_h, pitch_w = (4 * blocks * dim for blocks in tiling.distance_blocks)
        query, end = first, min(first + count, self.stage.queries)
        while query < end:  # the part of the tile in one row of the picture
            y, x = divmod(query, width)
            n, at = min(width - x, end - query), query - first
            yield "load", {
                "memory": "vec", "rows": n, "length": columns * dim // 2, "sp": CONSTANTS + columns * at,
                "sp_stride": columns, "address": places[0] + at * pitch_h + 4 * (height - 1 - y), "stride": pitch_h,
            }  # fmt: skip
            yield "load", {
                "memory": "vec", "rows": n, "length": row_blocks * dim // 2,
                "sp": CONSTANTS + columns * self.rows + row_blocks * at, "sp_stride": row_blocks,
                "address": places[1] + at * pitch_w + 4 * (width - 1 - x), "stride": pitch_w - 4,
            }  # fmt: skip
            query += n

    def _distances(self, place: int, count: int, act: int, wgt: int, blocks: int, scale: int) -> Iterator[Entry]:
        """Queries times every row of an int8 table, scaled, in memory."""
        dim, plane = self.config.dim, blocks * self.parts * self.config.dim
        for block in range(blocks):
            acc = (self.parts + self.rings.slot("acc", self.tiling.acc_slots)) * self.rows
            for half, (decode, zero) in enumerate(((_QUERIES_HIGH, 8), (_QUERIES, 0))):
                yield "gemm", {
                    "rows": count, "steps": self.parts, "blocks": 1, "act": act, "act_stride": self.rows,
                    "wgt": wgt + half * plane + block * self.parts * dim, "wgt_stride": dim, "zero": zero, "acc": acc,
                    "decode": decode, "accumulate": half,
                }  # fmt: skip
            slot = self._slot()
            yield "scale", {
                "memory": "vec", "rows": count, "blocks": 1, "acc": acc, "mult": scale, "dst": slot,
                "pre": self.stage.constants.rel_shift,
            }  # fmt: skip
            yield "store", {
                "memory": "vec", "rows": count, "length": dim // 2, "sp": slot, "sp_stride": 1,
                "address": place + 4 * block * dim, "stride": 4 * blocks * dim,
            }  # fmt: skip
