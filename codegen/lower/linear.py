"""A linear layer as instructions: codes in memory in, codes or accumulators in memory out.

As :mod:`..hardware.linear` (tiles of rows, sets of column blocks, chunks of inputs), with results either scaled and
encoded, for the next layer on the accelerator, or as the accumulators of each channel group, for the host: these it
scales with the very roundings of its own kernel, so that both agree in every bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...errors import DeviceError
from ..hardware.config import Config
from ..hardware.generated.isa import LIMITS
from ..hardware.layout import decode_table, encode_table, fixed_scale, pack_codes, weight_tiles
from ..hardware.schedule import Entry
from .memory import DeviceMemory
from .rings import Rings

MAX_GROUPS = 4
"""Decode tables that the array holds."""

MAX_BLOCKS = 6
"""Column blocks of a set: the scales of two sets give the array a token each, and a counter holds 15."""

ROWS = (64, 32, 16, 8)
"""Rows of a tile, the first that leaves room for two column blocks."""


_MANTISSA = LIMITS["mantissa_bits"]


def scale_parts(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mantissas and shifts of scales in the format of ``vec``, int64."""
    shift, mantissa = words.astype(np.int64) >> _MANTISSA & 63, words.astype(np.int64) & ((1 << _MANTISSA) - 1)
    return mantissa - ((mantissa >> (_MANTISSA - 1)) << _MANTISSA), shift


def scale_value(words: np.ndarray) -> np.ndarray:
    """What scales in the format of ``vec`` multiply by, exact in float64."""
    mantissa, shift = scale_parts(words)
    return mantissa / 2.0**shift


@dataclass(frozen=True, eq=False)
class Encoder:
    """From accumulators to codes.

    Attributes
    ----------
    multiplier, bias : numpy.ndarray
        ``(G, N)`` and ``(N,)`` real numbers.
    fraction_bits : int
        Of the scaled sums.
    thresholds, codes : numpy.ndarray
        Intervals of the sums in units of ``2**-fraction_bits``, and the code of each.
    """

    multiplier: np.ndarray
    bias: np.ndarray
    fraction_bits: int
    thresholds: np.ndarray
    codes: np.ndarray

    def scales(self) -> tuple[np.ndarray, np.ndarray]:
        """Multipliers in two parts, ``(G, N)`` words of ``vec`` each: what a mantissa holds, and what that leaves.

        The host's multipliers have 24 bits, a mantissa 21. With both parts, codes differ from the host's only where a
        sum lies within float32's own rounding of a threshold; with one, four times as often.
        """
        high = fixed_scale(self.multiplier, self.fraction_bits)
        rest = self.multiplier - scale_value(high) * 2.0**-self.fraction_bits
        return high, fixed_scale(rest, self.fraction_bits)


@dataclass(frozen=True, eq=False)
class LinearStage:
    """A layer whose operands are 4-bit codes.

    Attributes
    ----------
    rows : int
        A multiple of 8.
    weight, zero : numpy.ndarray
        ``(N, K)`` and ``(N,)`` uint8 codes and zero points; N a multiple of Dim.
    group_sizes : tuple of int
        Channels of each group, multiples of Dim; they sum to K.
    tables : numpy.ndarray
        ``(G, 16)`` operands of each group's codes.
    encoder : Encoder or None
        What makes codes of the result; None: the accumulators are the result.
    """

    rows: int
    weight: np.ndarray
    zero: np.ndarray
    group_sizes: tuple[int, ...]
    tables: np.ndarray
    encoder: Encoder | None = None

    @property
    def outputs(self) -> int:
        """N."""
        return self.weight.shape[0]

    def result_bytes(self) -> int:
        """Bytes of the result: codes ``(N / Dim, rows, Dim)``, or int32 ``(G, N / Dim, rows, Dim)``."""
        size = self.rows * self.outputs
        return size // 2 if self.encoder is not None else 4 * len(self.group_sizes) * size


@dataclass(frozen=True)
class Tiling:
    """Sizes of the loops, and where the parts lie in the scratchpads (words).

    Attributes
    ----------
    rows : int
        Of a tile.
    blocks : int
        Column blocks of a set.
    """

    config: Config
    stage: LinearStage
    rows: int
    blocks: int

    @property
    def groups(self) -> int:
        """Channel groups."""
        return len(self.stage.group_sizes)

    @cached_property
    def zeros(self) -> int:
        """Words of zero points, at the start of ``wgt``; whole chunks of memory."""
        granule = max(1, 16 // self.config.dim)
        return -(-self.stage.outputs // self.config.dim // granule) * granule

    @property
    def chunk(self) -> int:
        """Input blocks of a chunk: half of ``act``, and a quarter of ``wgt``."""
        return min(
            self.config.act_depth // 2 // self.rows, (self.config.wgt_depth - self.zeros) // (4 * self.config.dim)
        )

    @property
    def parameters(self) -> int:
        """Words of ``vec`` for scales and biases of a set; there are two such places. Accumulators need a 1 alone."""
        return (2 * self.groups + 1) * self.blocks if self.stage.encoder is not None else 1

    @property
    def slots(self) -> int:
        """Column blocks of a tile that fit ``vec`` behind the parameters; more than two sets are of no use."""
        return min(2 * self.blocks, (self.config.vec_depth - 2 * self.parameters) // self.rows)

    @property
    def fits(self) -> bool:
        """Whether the scratchpads hold it all."""
        return (
            self.chunk >= 1
            and self.blocks * self.rows <= self.config.acc_depth // 2
            and self.rows <= self.config.out_depth
            and self.slots >= self.blocks
        )


def choose_tiling(config: Config, stage: LinearStage) -> Tiling:
    """The default sizes: the longest tile of rows that still takes two column blocks at a time.

    Raises
    ------
    DeviceError
        If the layer does not fit the accelerator.
    """
    outputs, inputs = stage.weight.shape
    if stage.rows % 8 or outputs % config.dim or inputs != sum(stage.group_sizes):
        raise DeviceError(f"rows must be a multiple of 8 and outputs of {config.dim}; they are {stage.rows}, {outputs}")
    if len(stage.group_sizes) > MAX_GROUPS or any(size % config.dim for size in stage.group_sizes):
        raise DeviceError(f"groups {stage.group_sizes}: at most {MAX_GROUPS}, each of a multiple of {config.dim}")
    wanted = min(2, outputs // config.dim)
    best = None
    for rows in ROWS:
        for blocks in range(min(MAX_BLOCKS, outputs // config.dim), 0, -1):
            tiling = Tiling(config, stage, min(rows, stage.rows), blocks)
            if tiling.fits:
                if blocks >= wanted:
                    return tiling
                best = best or tiling
                break
    if best is None:
        raise DeviceError(f"{outputs // config.dim} column blocks in {len(stage.group_sizes)} groups do not fit "
                          f"{config.name}")  # fmt: skip
    return best


def linear_entries(memory: DeviceMemory, tiling: Tiling, source: int, result: int) -> list[Entry]:
    """Instructions of a layer, without tokens.

    Parameters
    ----------
    memory : DeviceMemory
        Receives weights and tables.
    tiling : Tiling
        Layer and sizes.
    source, result : int
        Addresses of the codes ``(K / Dim, rows, Dim)`` and of the result.
    """
    return list(_Lowering(memory, tiling, source, result).entries())


class _Lowering:
    def __init__(self, memory: DeviceMemory, tiling: Tiling, source: int, result: int) -> None:
        self.tiling, self.stage, self.config = tiling, tiling.stage, tiling.config
        self.source, self.result, self.rings = source, result, Rings()
        self.word = self.config.dim // 2
        self._place(memory)

    def _place(self, memory: DeviceMemory) -> None:
        stage, dim = self.stage, self.config.dim
        zeros = np.zeros(self.tiling.zeros * dim, np.uint8)
        zeros[: stage.outputs] = stage.zero
        self.weights = memory.constant(pack_codes(weight_tiles(stage.weight, dim)))
        self.zero_points = memory.constant(pack_codes(zeros))
        self.decode = memory.constant(np.concatenate([decode_table(table) for table in stage.tables]))
        if stage.encoder is None:
            self.parameters = memory.constant(np.ones(dim, np.int32))  # a mantissa of 1, shifted by 0
            return
        encoder = stage.encoder
        bias = np.rint(encoder.bias * 2.0**encoder.fraction_bits).astype(np.int32)[None]
        self.parameters = memory.constant(np.concatenate([*encoder.scales(), bias]).astype(np.int32))
        self.encode = memory.constant(encode_table(encoder.thresholds, encoder.codes))

    def entries(self) -> Iterator[Entry]:
        tiling, groups = self.tiling, self.tiling.groups
        yield "load", {"memory": "decode", "rows": 1, "length": 8 * groups, "address": self.decode}
        if self.stage.encoder is not None:
            yield "load", {"memory": "encode", "rows": 1, "length": 32, "address": self.encode}
        else:
            length = self.config.dim // 2
            yield "load", {"memory": "vec", "rows": 1, "length": length, "address": self.parameters}
        chunks = tiling.zeros * self.config.dim // 16
        yield "load", {"memory": "wgt", "rows": 1, "length": chunks, "address": self.zero_points}
        outputs = self.stage.outputs // self.config.dim
        for first in range(0, self.stage.rows, tiling.rows):
            count = min(tiling.rows, self.stage.rows - first)
            for block in range(0, outputs, tiling.blocks):
                yield from self._set(first, count, block, min(tiling.blocks, outputs - block))

    def _set(self, first: int, count: int, block: int, blocks: int) -> Iterator[Entry]:
        """One tile of rows and one set of column blocks."""
        tiling, config = self.tiling, self.config
        at, sums = 0, [0] * blocks
        if self.stage.encoder is not None:
            at = self.rings.slot("vec", 2) * tiling.parameters
            yield "load", {
                "memory": "vec", "rows": 2 * tiling.groups + 1, "length": blocks * config.dim // 2, "sp": at,
                "sp_stride": tiling.blocks, "address": self.parameters + 4 * config.dim * block,
                "stride": 4 * self.stage.outputs,
            }  # fmt: skip
            sums = [self._slot() for _ in range(blocks)]
        step = 0
        for group, size in enumerate(self.stage.group_sizes):
            half = self.rings.slot("acc", 2) * (config.acc_depth // 2)
            yield from self._products(first, count, block, blocks, group, step, half)
            step += size // config.dim
            for i in range(blocks):
                if self.stage.encoder is None:
                    yield from self._accumulators(first, count, block + i, group, half + i * tiling.rows)
                else:
                    yield from self._scale(first, count, block, i, group, half, at, sums[i])

    def _slot(self) -> int:
        return 2 * self.tiling.parameters + self.rings.slot("sums", self.tiling.slots) * self.tiling.rows

    def _products(
        self, first: int, count: int, block: int, blocks: int, group: int, begin: int, half: int
    ) -> Iterator[Entry]:
        """The accumulators of one group of channels."""
        tiling, dim, total = self.tiling, self.config.dim, self.stage.rows
        inputs, end, step = sum(self.stage.group_sizes) // dim, begin + self.stage.group_sizes[group] // dim, begin
        while step < end:
            # chunks of one size: a short one would leave too little time to load a long one
            steps = -(-(end - step) // -(-(end - step) // tiling.chunk))
            act = self.rings.slot("act", 2) * (self.config.act_depth // 2)
            yield "load", {
                "memory": "act", "rows": steps, "length": count * self.word // 8, "sp": act, "sp_stride": tiling.rows,
                "address": self.source + (step * total + first) * self.word, "stride": total * self.word,
            }  # fmt: skip
            for i in range(blocks):
                wgt = tiling.zeros + self.rings.slot("wgt", 4) * tiling.chunk * dim
                yield "load", {
                    "memory": "wgt", "rows": 1, "length": steps * dim * self.word // 8, "sp": wgt,
                    "address": self.weights + ((block + i) * inputs + step) * dim * self.word,
                }  # fmt: skip
                yield "gemm", {
                    "rows": count, "steps": steps, "blocks": 1, "act": act, "act_stride": tiling.rows, "wgt": wgt,
                    "wgt_stride": dim, "zero": block + i, "zero_vector": 1, "acc": half + i * tiling.rows,
                    "decode": group, "accumulate": int(step > begin),
                }  # fmt: skip
            step += steps

    def _scale(
        self, first: int, count: int, block: int, i: int, group: int, half: int, at: int, sums: int
    ) -> Iterator[Entry]:
        """Adds up the groups of one column block; behind the last group, encodes and stores them."""
        tiling, last = self.tiling, group + 1 == self.tiling.groups
        slots = min(4, self.config.out_depth // tiling.rows)
        target = self.rings.slot("out", slots) * tiling.rows if last else sums
        scaled = {"rows": count, "blocks": 1, "acc": half + i * tiling.rows}
        yield "scale", {
            **scaled, "memory": "vec", "mult": at + group * tiling.blocks + i, "add_mode": 2 if group else 1,
            "add": sums if group else at + 2 * tiling.groups * tiling.blocks + i, "dst": sums,
        }  # fmt: skip
        yield "scale", {
            **scaled, "memory": "out" if last else "vec", "mult": at + (tiling.groups + group) * tiling.blocks + i,
            "add_mode": 2, "add": sums, "dst": target,
        }  # fmt: skip
        if last:
            yield "store", {
                "memory": "out", "rows": 1, "length": count * self.word // 8, "sp": target,
                "address": self.result + ((block + i) * self.stage.rows + first) * self.word,
            }  # fmt: skip

    def _accumulators(self, first: int, count: int, block: int, group: int, acc: int) -> Iterator[Entry]:
        """Stores the sums of one group and column block as they are."""
        dim, slot = self.config.dim, self._slot()
        yield "scale", {"memory": "vec", "rows": count, "blocks": 1, "acc": acc, "mult": 0, "dst": slot}
        place = (group * (self.stage.outputs // dim) + block) * self.stage.rows + first
        yield "store", {"memory": "vec", "rows": 1, "length": count * dim // 2, "sp": slot,
                        "address": self.result + 4 * dim * place}  # fmt: skip
