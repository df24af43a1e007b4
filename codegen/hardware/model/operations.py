"""Semantics of each instruction on the scratchpads and the external memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvm_ahcq.codegen.isa.generated.isa import (
    LIMITS,
    Gemm,
    Instruction,
    Load,
    Logit,
    Prob,
    Scale,
    Store,
)
from tvm_ahcq.codegen.isa.layout import MAX_SHIFT, pack_codes, unpack_codes

from .state import LOGIT_LIMIT, MASKED, State, encode, saturate, shift_round, signed

_MANTISSA = LIMITS["mantissa_bits"]


def load(state: State, memory: bytearray, f: Load) -> None:
    """Rows of external memory into a scratchpad or table."""
    name, size = f.memory, 8 * f.length
    for row in range(f.rows):
        start = f.address + row * f.stride
        data, at = bytes(memory[start : start + size]), f.sp + row * f.sp_stride
        if name in ("decode", "encode"):
            entries = np.frombuffer(data, "<i4").astype(np.int64)
            if name == "decode":
                state.decode[2 * at : 2 * at + entries.size] = signed(entries, 9)
            else:
                slots = np.arange(2 * at, 2 * at + entries.size)
                state.encode[slots] = np.where(slots < 32, entries, entries & 15)
            continue
        values = np.frombuffer(data, "<i4") if name == "vec" else unpack_codes(data)
        words = values.reshape(-1, state.config.dim)
        getattr(state, name)[at : at + len(words)] = words


def store(state: State, memory: bytearray, f: Store) -> None:
    """Rows of a scratchpad into external memory."""
    name, size = f.memory, 8 * f.length
    words = state.config.words(name, f.length)
    assert words is not None  # the decoder refuses rows that are not whole words
    for row in range(f.rows):
        at, start = f.sp + row * f.sp_stride, f.address + row * f.stride
        values = getattr(state, name)[at : at + words]
        memory[start : start + size] = values.astype("<i4").tobytes() if name == "vec" else pack_codes(values)


def gemm(state: State, memory: bytearray, f: Gemm) -> None:
    """Weight-stationary GEMM into the accumulators; sums are modulo 2**32."""
    dim, rows = state.config.dim, f.rows
    table = state.decode[16 * f.decode : 16 * f.decode + 16]
    for block in range(f.blocks):
        zero = state.wgt[f.zero + block].astype(np.int64) if f.zero_vector else f.zero & 15
        at = f.acc + block * f.acc_block
        total = state.acc[at : at + rows].copy() if f.accumulate else np.zeros((rows, dim), np.int64)
        for step in range(f.steps):
            act = f.act + step * f.act_stride
            wgt = f.wgt + block * f.wgt_block + step * f.wgt_stride
            tile = state.wgt[wgt : wgt + dim].astype(np.int64)
            weight = (tile.T if f.transpose else tile) - zero
            total += table[state.act[act : act + rows]] @ weight
        state.acc[at : at + rows] = signed(total, 32)


def scale(state: State, memory: bytearray, f: Scale) -> None:
    """Accumulators times a scale for each column, plus an addend; to numbers or to codes."""
    rows, name = f.rows, f.memory
    for block in range(f.blocks):
        at = f.acc + block * f.acc_block
        scales = state.vec[f.mult + block]
        mantissa, shift = signed(scales, _MANTISSA), np.minimum((scales >> _MANTISSA) & 63, MAX_SHIFT)
        product = shift_round(state.acc[at : at + rows], f.pre) * mantissa
        addend: np.ndarray | int = 0
        if f.add_mode == 1:
            addend = state.vec[f.add + block]
        elif f.add_mode == 2:
            start = f.add + block * f.add_block
            addend = state.vec[start : start + rows].copy()
        y = saturate(shift_round(product, shift) + addend, 32)
        dst = f.dst + block * f.dst_block
        getattr(state, name)[dst : dst + rows] = y if name == "vec" else encode(state, y)


def logit(state: State, memory: bytearray, f: Logit) -> None:
    """Accumulators to fixed-point base-2 logits; the greatest of each row."""
    config, rows, blocks = state.config, f.rows, f.blocks
    mult = int(signed(f.mult, _MANTISSA))
    real = np.arange(blocks * config.dim) < (blocks - 1) * config.dim + f.valid
    for row in range(rows):
        columns = [state.acc[f.acc + block * f.acc_block + row] for block in range(blocks)]
        wide = shift_round(np.concatenate(columns), f.pre) * mult
        if f.rel:
            start = f.rel_w + row * f.rel_w_row
            lane = f.rel_h_lane % config.dim
            wide = wide + state.vec[start : start + blocks].reshape(-1) + state.vec[f.rel_h + row * f.rel_h_row, lane]
        t = np.clip(shift_round(wide, f.shift), -LOGIT_LIMIT + 1, LOGIT_LIMIT - 1)
        t = np.where(real, t, MASKED)
        start = f.lgt + row * f.lgt_row
        state.lgt[start : start + blocks] = t.reshape(blocks, config.dim)
        old = MASKED if f.first else state.row_max[f.stat + row]
        state.row_max[f.stat + row] = max(old, t.max())


def prob(state: State, memory: bytearray, f: Prob) -> None:
    """Codes of logits less the greatest of their row, as the left operand of the next GEMM."""
    for row in range(f.rows):
        start = f.lgt + row * f.lgt_row
        codes = encode(state, state.lgt[start : start + f.blocks] - state.row_max[f.stat + row])
        state.act[f.dst + np.arange(f.blocks) * f.dst_block + row] = codes


OPERATIONS: dict[type[Instruction], Callable[[State, bytearray, Any], None]] = {
    Load: load,
    Store: store,
    Gemm: gemm,
    Scale: scale,
    Logit: logit,
    Prob: prob,
}
