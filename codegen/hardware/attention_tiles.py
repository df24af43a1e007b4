"""Heads without relative positions as a program that keeps the array busy.

Queries are taken in tiles. While the array works on the logits of the next tile, the vector unit turns those of this
one into probabilities; while it multiplies these with the values, the vector unit takes the next logits out of the
accumulators. Keys and values of a head stay in ``wgt``; those of the next head are loaded meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import DeviceError
from ...quantizers.reference import LogAttention
from .config import Config
from .image import MemoryImage
from .layout import code_blocks, decode_table, encode_table, fixed_scale, pack_codes
from .schedule import Entry, synchronise

_QUERIES, _PROBABILITIES = range(2)


@dataclass(frozen=True)
class Heads:
    """Inputs of several heads with the same constants.

    Attributes
    ----------
    q, k, v : numpy.ndarray
        ``(heads, tokens, d)`` uint8 codes of 4 bits, d a multiple of Dim.
    constants : LogAttention
        Of the site.
    """

    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    constants: LogAttention


@dataclass(frozen=True)
class _Tile:
    """One tile of queries: of which head, from which query on, which of the two buffers."""

    head: int
    first: int
    rows: int
    buffer: int


class _Plan:
    """Sizes of a call and addresses of its operands; words of the scratchpads."""

    def __init__(self, config: Config, image: MemoryImage, heads: Heads, rows: int) -> None:
        count, tokens, channels = heads.q.shape
        dim = config.dim
        self.config, self.heads, self.rows = config, heads, rows
        self.blocks = -(-tokens // dim)  # of keys
        self.parts = channels // dim
        self.tokens, self.count = tokens, count
        self.keys = self.blocks * dim
        self.per_head = 2 * self.parts * self.keys
        self.act_tile = (self.parts + self.blocks) * rows
        fits = {
            "wgt": 2 * self.per_head <= config.wgt_depth, "act": 2 * self.act_tile <= config.act_depth,
            "stat": 2 * rows <= config.stat_depth,
            "lgt": 2 * rows * self.blocks <= config.lgt_depth,
            "acc": max(self.blocks, self.parts) * rows <= config.acc_depth // 2,
            "vec": self.parts * (2 * rows + 1) <= config.vec_depth,
        }  # fmt: skip
        if channels % dim or not all(fits.values()):
            full = [name for name, fit in fits.items() if not fit] or [f"channels ({channels} of a multiple of {dim})"]
            raise DeviceError(f"{tokens} tokens of {channels} channels do not fit {config.name}: {', '.join(full)}.")
        padded = np.zeros((3, count, self.keys, channels), np.uint8)
        padded[:, :, :tokens] = np.stack([heads.q, heads.k, heads.v])
        blocks = [[code_blocks(head, dim) for head in part] for part in padded]
        self.at = {name: image.place(pack_codes(np.stack(part))) for name, part in zip("qkv", blocks, strict=True)}
        self.result = image.reserve(count * self.parts * self.keys * dim * 4)


def heads_program(config: Config, image: MemoryImage, heads: Heads, rows: int = 32) -> tuple[bytes, int]:
    """Program of the heads, and the address of its sums: int32 ``(heads, d / Dim, padded tokens, Dim)``.

    Tokens are padded to a multiple of Dim.

    Raises
    ------
    DeviceError
        If a head does not fit the scratchpads.
    """
    plan = _Plan(config, image, heads, rows)
    tiles = [
        _Tile(head, first, min(rows, plan.keys - first), 0) for head in range(plan.count)
        for first in range(0, plan.keys, rows)
    ]  # fmt: skip
    tiles = [_Tile(tile.head, tile.first, tile.rows, number % 2) for number, tile in enumerate(tiles)]
    entries = _tables(image, plan)
    entries += _load_head(plan, 0)
    loaded = 0
    for tile, before in zip([*tiles, None], [None, *tiles], strict=True):
        if tile is not None:
            entries += _scores(plan, tile)
        if before is not None:
            entries += _probabilities(plan, before)
        if tile is not None:
            entries.append(_logit(plan, tile))
            # from here on nothing reads the head before this one
            if loaded == tile.head and loaded + 1 < plan.count:
                loaded += 1
                entries += _load_head(plan, loaded)
        if before is not None:
            entries += _finish(plan, before)
    return synchronise(entries, config), plan.result


def _tables(image: MemoryImage, plan: _Plan) -> list[Entry]:
    c = plan.heads.constants
    decode = np.concatenate([decode_table(np.arange(16) - c.q_zero), decode_table(c.table)])
    encode = encode_table(-c.log_thresholds - 1, np.arange(len(c.table)))
    ones = fixed_scale(np.ones(plan.parts * plan.config.dim), 0)
    return [
        ("load", {"memory": memory, "rows": 1, "length": len(values) // 2, "address": image.place(values)})
        for memory, values in (("decode", decode), ("encode", encode), ("vec", ones))
    ]


def _load_head(plan: _Plan, head: int) -> list[Entry]:
    """Keys and values of a head into its buffer of ``wgt``."""
    base, size = head % 2 * plan.per_head, plan.parts * plan.keys
    chunks = size * plan.config.dim // 16
    return [
        ("load", {"memory": "wgt", "rows": 1, "length": chunks, "sp": base + part * size,
                  "address": plan.at[name] + head * 8 * chunks})
        for part, name in enumerate("kv")
    ]  # fmt: skip


def _scores(plan: _Plan, tile: _Tile) -> list[Entry]:
    """Queries of a tile, and their products with every key."""
    word, act = plan.config.dim // 2, tile.buffer * plan.act_tile
    return [
        ("load", {
            "memory": "act", "rows": plan.parts, "length": tile.rows * word // 8, "sp": act, "sp_stride": plan.rows,
            "address": plan.at["q"] + (tile.head * plan.parts * plan.keys + tile.first) * word,
            "stride": plan.keys * word,
        }),
        ("gemm", {
            "rows": tile.rows, "steps": plan.parts, "blocks": plan.blocks, "act": act, "act_stride": plan.rows,
            "wgt": tile.head % 2 * plan.per_head, "wgt_stride": plan.keys, "wgt_block": plan.config.dim,
            "zero": plan.heads.constants.k_zero, "transpose": 1, "acc": 0, "acc_block": plan.rows, "decode": _QUERIES,
        }),
    ]  # fmt: skip


def _logit(plan: _Plan, tile: _Tile) -> Entry:
    c = plan.heads.constants
    return "logit", {
        "rows": tile.rows, "blocks": plan.blocks, "acc": 0, "acc_block": plan.rows, "lgt_row": plan.blocks,
        "lgt": tile.buffer * plan.rows * plan.blocks, "stat": tile.buffer * plan.rows, "mult": c.qk_multiplier,
        "pre": c.qk_shift, "shift": c.shift, "valid": plan.tokens - (plan.blocks - 1) * plan.config.dim, "first": 1,
    }  # fmt: skip


def _probabilities(plan: _Plan, tile: _Tile) -> list[Entry]:
    """Softmax of a tile, and its product with the values in the other half of the accumulators."""
    act = tile.buffer * plan.act_tile + plan.parts * plan.rows
    rows = {
        "rows": tile.rows, "blocks": plan.blocks, "lgt": tile.buffer * plan.rows * plan.blocks,
        "lgt_row": plan.blocks, "stat": tile.buffer * plan.rows,
    }  # fmt: skip
    return [
        ("expsum", rows),
        ("prob", {**rows, "dst": act, "dst_block": plan.rows}),
        ("gemm", {
            "rows": tile.rows, "steps": plan.blocks, "blocks": plan.parts, "act": act, "act_stride": plan.rows,
            "wgt": tile.head % 2 * plan.per_head + plan.parts * plan.keys, "wgt_stride": plan.config.dim,
            "wgt_block": plan.keys, "zero": plan.heads.constants.v_zero, "acc": plan.config.acc_depth // 2,
            "acc_block": plan.rows, "decode": _PROBABILITIES,
        }),
    ]  # fmt: skip


def _finish(plan: _Plan, tile: _Tile) -> list[Entry]:
    """Sums of a tile to memory."""
    dim, sums = plan.config.dim, plan.parts + tile.buffer * plan.parts * plan.rows
    return [
        ("scale", {
            "memory": "vec", "rows": tile.rows, "blocks": plan.parts, "acc": plan.config.acc_depth // 2,
            "acc_block": plan.rows, "dst": sums, "dst_block": plan.rows,
        }),
        ("store", {
            "memory": "vec", "rows": plan.parts, "length": tile.rows * dim // 2, "sp": sums, "sp_stride": plan.rows,
            "address": plan.result + (tile.head * plan.parts * plan.keys + tile.first) * dim * 4,
            "stride": plan.keys * dim * 4,
        }),
    ]  # fmt: skip
