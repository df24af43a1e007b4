"""Operands, results and tables of an attention in external memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tvm_ahcq.codegen.isa.layout import code_blocks, decode_table, encode_table, fixed_scale, pack_codes, planes
from tvm_ahcq.codegen.lower.address_space import DeviceMemory

from .plan import AttentionPlan


@dataclass(frozen=True)
class AttentionAddresses:
    """Byte addresses.

    Attributes
    ----------
    queries, keys, values : int
        4-bit codes ``(heads, blocks of d, padded rows, Dim)``, rows in the order of :meth:`.AttentionPlan.query_rows`
        and :meth:`.AttentionPlan.key_rows`.
    sums : int
        int32 results ``(heads, d // Dim + 1, padded queries, Dim)``; the sums of the rows' operands lie behind the
        channels.
    decode, encode, scales : int
        Decode tables, the interval encoder, and the words of scales.
    rel_tables : (int, int)
        Halves of the tables of relative positions, of heights and widths; 0 where there are none.
    rel_buffers : (int, int)
        Width terms of every distance, of two tiles; 0 where there are none.
    """

    queries: int
    keys: int
    values: int
    sums: int
    decode: int
    encode: int
    scales: int
    rel_tables: tuple[int, int] = (0, 0)
    rel_buffers: tuple[int, int] = (0, 0)


def place_attention(plan: AttentionPlan, memory: DeviceMemory) -> AttentionAddresses:
    """Place the tables of an attention in memory, and reserve what its program reads and writes there."""
    heads, dim, c = plan.stage.heads, plan.config.dim, plan.constants
    queries, keys, values = (
        memory.scratch(heads * rows * plan.channel_blocks * dim // 2)
        for rows in (plan.padded_queries, plan.keys, plan.keys)
    )
    codes = np.arange(16) - c.q_zero
    decode = memory.constant(np.concatenate([decode_table(table) for table in (codes, c.table, 16 * codes)]))
    encode = memory.constant(encode_table(-c.log_thresholds - 1, np.arange(len(c.table))))
    one, minus_one = fixed_scale(np.array([1.0, -1.0]), 0)
    words = [one, c.rel_h_multiplier, c.rel_w_multiplier, minus_one]
    scales = memory.constant(np.repeat(np.array(words, np.int32), dim))
    rel_tables, rel_buffers = (0, 0), (0, 0)
    if plan.stage.rel_h is not None and plan.stage.rel_w is not None:
        tables = zip((plan.stage.rel_h, plan.stage.rel_w), plan.entries, strict=True)
        height, width = (memory.constant(_table_codes(table, entries, dim)) for table, entries in tables)
        # behind the last query its window may read past its row: room for one more
        first, second = (memory.scratch((plan.rows + 1) * plan.rel_pitch) for _ in range(2))
        rel_tables, rel_buffers = (height, width), (first, second)
    sums = memory.scratch(heads * plan.padded_queries * plan.result_blocks * dim * 4)
    return AttentionAddresses(queries, keys, values, sums, decode, encode, scales, rel_tables, rel_buffers)


def _table_codes(table: np.ndarray, entries: int, dim: int) -> bytes:
    """Halves of a table of relative positions as two sets of keys, the greatest distance first."""
    padded = np.zeros((entries, table.shape[1]), np.int16)
    padded[: len(table)] = table[::-1]
    high, low = planes(padded)
    halves = (high + 8, low)
    return pack_codes(np.stack([code_blocks(half.astype(np.uint8), dim) for half in halves]))
