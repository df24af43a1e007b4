"""A quantized linear layer as a program that keeps the array busy.

Rows are taken in tiles, outputs in sets of column blocks that fill half of the accumulators, inputs in chunks that fit
half of ``act``. Loads of the next chunk, the array, and scaling and storing of the last set then run side by side: the
order of the instructions below and the tokens of :mod:`.schedule` are all that it takes. Instructions are dispatched in
order and queues are short, so what finishes a set stands between the GEMMs of the next one: in front of them it would
hold up the loads that they need.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Entry, insert_dependency_tokens
from tvm_ahcq.codegen.isa.generated.isa import LIMITS
from tvm_ahcq.codegen.isa.layout import code_blocks, decode_table, encode_table, fixed_scale, pack_codes, weight_tiles
from tvm_ahcq.codegen.isa.memory_image import MemoryImage
from tvm_ahcq.errors import DeviceError

_ROWS = (64, 128, 256, 32, 16, 8)
"""Rows of a tile, in the order in which they are tried: enough to hide the loading of weights, few enough for many
blocks of accumulators; more for a large array, whose weights take long to load; few where nothing else fits."""

_OUT_BUFFERS = 8
"""Of results on their way to memory: each that is sent gives the vector unit a token, and a counter holds 15."""


@dataclass(frozen=True)
class Linear:
    """Operands of a layer whose result is encoded to 4-bit codes.

    Attributes
    ----------
    codes : numpy.ndarray
        ``(M, K)`` uint8 codes, groups contiguous; M a multiple of 8.
    weight, zero : numpy.ndarray
        ``(N, K)`` and ``(N,)`` uint8 codes and zero points.
    group_sizes : tuple of int
        Channels of each group, multiples of Dim; they sum to K.
    tables : numpy.ndarray
        ``(G, 16)`` operands of each group's codes.
    multiplier, bias : numpy.ndarray
        ``(G, N)`` and ``(N,)`` real numbers.
    fraction_bits : int
        Fraction of the sum before it is encoded.
    thresholds, out_codes : numpy.ndarray
        Interval encoder, in units of ``2**-fraction_bits``.
    """

    codes: np.ndarray
    weight: np.ndarray
    zero: np.ndarray
    group_sizes: tuple[int, ...]
    tables: np.ndarray
    multiplier: np.ndarray
    bias: np.ndarray
    fraction_bits: int
    thresholds: np.ndarray
    out_codes: np.ndarray


@dataclass(frozen=True)
class _Tiling:
    """Sizes of the loops, and where the parts lie in the scratchpads (words)."""

    config: Config
    groups: int
    outputs: int  # column blocks of the layer
    rows: int

    @cached_property
    def blocks(self) -> int:
        """Column blocks of a set: half the accumulators; with several groups, also their sums in ``vec``.

        At most 7: every scale of two sets gives the array a token, and a counter holds 15.
        """
        fit = self.config.acc_depth // 2 // self.rows
        if self.groups > 1:
            fit = min(fit, self.config.vec_depth // (self.rows + 2 * self.groups + 2))
        return min(fit, 7, self.outputs)

    @property
    def fits(self) -> bool:
        """Whether there is room for one column block, one chunk and one result."""
        return self.blocks >= 1 and self.chunk >= 1 and self.rows <= self.config.out_depth

    @property
    def bytes_per_cycle(self) -> float:
        """What has to be loaded for a cycle of the array: activations once a set, weights once a tile of rows."""
        return self.config.dim / 2 * (1 / self.blocks + self.config.dim / self.rows)

    @property
    def out_buffers(self) -> int:
        """Places for results of one column block in ``out``."""
        return min(self.config.out_depth // self.rows, _OUT_BUFFERS)

    @property
    def chunk(self) -> int:
        """Input blocks of a chunk: half of ``act``, and a share of ``wgt`` that leaves three chunks of weights."""
        return min(
            self.config.act_depth // 2 // self.rows, (self.config.wgt_depth - self.zeros) // (4 * self.config.dim)
        )

    @property
    def zeros(self) -> int:
        """Words of zero points, at the start of ``wgt``."""
        granule = max(1, 16 // self.config.dim)
        return -(-self.outputs // granule) * granule

    @property
    def parameters(self) -> int:
        """Words of ``vec`` for the scales and biases of one set; there are two such places."""
        return (self.groups + 1) * self.blocks

    @property
    def sums(self) -> int:
        """Word of ``vec`` where the sums of the groups so far begin."""
        return 2 * self.parameters


def linear_program(config: Config, image: MemoryImage, layer: Linear, rows: int | None = None) -> tuple[bytes, int]:
    """Program of a layer, and the address of its codes ``(N / Dim, M, Dim)``.

    Parameters
    ----------
    config : Config
        Accelerator.
    image : MemoryImage
        Receives operands and results.
    layer : Linear
        Inputs.
    rows : int, optional
        Rows of a tile; by default those that need the least memory traffic.

    Raises
    ------
    DeviceError
        If sizes are not multiples of what the layouts need, or there are too many groups or outputs.
    """
    total, dim = layer.codes.shape[0], config.dim
    outputs = layer.weight.shape[0] // dim
    if total % 8 or layer.weight.shape[0] % dim or any(size % dim for size in layer.group_sizes):
        raise DeviceError(
            f"M must be a multiple of 8, N and groups of {dim}; M {total}, N {layer.weight.shape[0]}, "
            f"groups {layer.group_sizes}: pad them."
        )
    tiling = _tiling(config, len(layer.group_sizes), outputs, total, (rows,) if rows else _ROWS)
    word = dim // 2
    places = _place(image, config, layer, tiling)
    result = image.reserve(outputs * total * word)
    entries = _tables(places, config, tiling)
    state, pending = _Rings(), _Pending()
    for first in range(0, total, tiling.rows):
        count = min(tiling.rows, total - first)
        for block in range(0, outputs, tiling.blocks):
            blocks = min(tiling.blocks, outputs - block)
            entries += _set(config, layer, tiling, places, state, pending, first, count, block, blocks)
            for i in range(blocks):
                slot = state.slot("out", tiling.out_buffers) * tiling.rows
                pending.add(
                    _last_scale(tiling, state, count, i, slot),
                    (
                        "store",
                        {
                            "memory": "out",
                            "rows": 1,
                            "length": count * word // 8,
                            "sp": slot,
                            "address": result + ((block + i) * total + first) * word,
                        },
                    ),
                )
    entries += pending.take_all()
    return insert_dependency_tokens(entries, config), result


def _tiling(config: Config, groups: int, outputs: int, total: int, sizes: Sequence[int]) -> _Tiling:
    """The first of these sizes of a tile that needs hardly more memory traffic than the best of them."""
    tilings = [_Tiling(config, groups, outputs, min(rows, total)) for rows in sizes]
    fitting = [tiling for tiling in tilings if tiling.fits]
    if groups > LIMITS["decode_tables"] or not fitting:
        raise DeviceError(
            f"{groups} groups and {outputs} column blocks are too many for {config.name}, with tiles of "
            f"{', '.join(map(str, sizes))} rows."
        )
    least = min(tiling.bytes_per_cycle for tiling in fitting)
    return next(tiling for tiling in fitting if tiling.bytes_per_cycle <= 1.1 * least)


class _Rings:
    """Which buffer of each kind is next."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def slot(self, name: str, count: int) -> int:
        """The next of `count` buffers."""
        current = self._next.get(name, -1)
        self._next[name] = (current + 1) % count
        return self._next[name]

    def current(self, name: str) -> int:
        """The one that :meth:`slot` gave last."""
        return self._next[name]


class _Pending:
    """What finishes the column blocks of a set, to be put between the instructions of the next."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Entry, ...]] = []

    def add(self, *entries: Entry) -> None:
        """What finishes one more block."""
        self._blocks.append(entries)

    def take(self) -> list[Entry]:
        """What finishes the first block that is left, if there is one."""
        return list(self._blocks.pop(0)) if self._blocks else []

    def take_all(self) -> list[Entry]:
        """What finishes all that are left."""
        return [entry for _ in range(len(self._blocks)) for entry in self.take()]


def _place(image: MemoryImage, config: Config, layer: Linear, tiling: _Tiling) -> dict[str, int]:
    """Operands in external memory."""
    dim = config.dim
    zeros = np.zeros(tiling.zeros * dim, np.uint8)
    zeros[: layer.zero.size] = layer.zero
    scales = fixed_scale(layer.multiplier, layer.fraction_bits).reshape(tiling.groups, -1, dim)
    bias = np.rint(layer.bias * 2.0**layer.fraction_bits).astype(np.int32).reshape(1, -1, dim)
    return {
        "act": image.place(pack_codes(code_blocks(layer.codes, dim))),
        "wgt": image.place(pack_codes(weight_tiles(layer.weight, dim))),
        "zero": image.place(pack_codes(zeros)),
        "decode": image.place(np.concatenate([decode_table(table) for table in layer.tables])),
        "encode": image.place(encode_table(layer.thresholds, layer.out_codes)),
        "vec": image.place(np.concatenate([scales, bias]).astype(np.int32)),
    }


def _tables(places: dict[str, int], config: Config, tiling: _Tiling) -> list[Entry]:
    zero_chunks = tiling.zeros * config.dim // 16
    return [
        ("load", {"memory": "decode", "rows": 1, "length": 8 * tiling.groups, "address": places["decode"]}),
        ("load", {"memory": "encode", "rows": 1, "length": 32, "address": places["encode"]}),
        ("load", {"memory": "wgt", "rows": 1, "length": zero_chunks, "address": places["zero"]}),
    ]


def _set(
    config: Config,
    layer: Linear,
    tiling: _Tiling,
    places: dict[str, int],
    state: _Rings,
    pending: _Pending,
    first: int,
    count: int,
    block: int,
    blocks: int,
) -> list[Entry]:
    """The sums of one row tile and one set of column blocks, but for the scale of the last group."""
    dim, word, total = config.dim, config.dim // 2, layer.codes.shape[0]
    inputs = layer.codes.shape[1] // dim
    at, step = state.slot("vec", 2) * tiling.parameters, 0
    entries: list[Entry] = [
        (
            "load",
            {
                "memory": "vec",
                "rows": tiling.groups + 1,
                "length": blocks * dim // 2,
                "sp": at,
                "sp_stride": tiling.blocks,
                "address": places["vec"] + 4 * dim * block,
                "stride": 4 * layer.weight.shape[0],
            },
        )
    ]
    for group, size in enumerate(layer.group_sizes):
        half = state.slot("acc", 2) * (config.acc_depth // 2)
        begin, end = step, step + size // dim
        while step < end:
            # chunks of one size: a short one would leave too little time to load a long one
            steps = -(-(end - step) // -(-(end - step) // tiling.chunk))
            act = state.slot("act", 2) * (config.act_depth // 2)
            entries.append(
                (
                    "load",
                    {
                        "memory": "act",
                        "rows": steps,
                        "length": count * word // 8,
                        "sp": act,
                        "sp_stride": tiling.rows,
                        "address": places["act"] + (step * total + first) * word,
                        "stride": total * word,
                    },
                )
            )
            for i in range(blocks):
                wgt = tiling.zeros + state.slot("wgt", 4) * tiling.chunk * dim
                entries.append(
                    (
                        "load",
                        {
                            "memory": "wgt",
                            "rows": 1,
                            "length": steps * dim * word // 8,
                            "sp": wgt,
                            "address": places["wgt"] + ((block + i) * inputs + step) * dim * word,
                        },
                    )
                )
                entries.append(
                    (
                        "gemm",
                        {
                            "rows": count,
                            "steps": steps,
                            "blocks": 1,
                            "act": act,
                            "act_stride": tiling.rows,
                            "wgt": wgt,
                            "wgt_stride": dim,
                            "zero": block + i,
                            "zero_vector": 1,
                            "acc": half + i * tiling.rows,
                            "decode": group,
                            "accumulate": int(step > begin),
                        },
                    )
                )
                entries += pending.take()
            step += steps
        entries += pending.take_all()
        if group + 1 < tiling.groups:
            entries.append(
                (
                    "scale",
                    {
                        "memory": "vec",
                        "rows": count,
                        "blocks": blocks,
                        "acc": half,
                        "acc_block": tiling.rows,
                        "mult": at + group * tiling.blocks,
                        "add_mode": 2 if group else 1,
                        "add": tiling.sums if group else at + tiling.groups * tiling.blocks,
                        "add_block": tiling.rows,
                        "dst": tiling.sums,
                        "dst_block": tiling.rows,
                    },
                )
            )
    return entries


def _last_scale(tiling: _Tiling, state: _Rings, count: int, block: int, slot: int) -> Entry:
    """The last group of one column block, encoded."""
    at, half = state.current("vec") * tiling.parameters, state.current("acc") * (tiling.config.acc_depth // 2)
    several = tiling.groups > 1
    return "scale", {
        "memory": "out",
        "rows": count,
        "blocks": 1,
        "acc": half + block * tiling.rows,
        "dst": slot,
        "mult": at + (tiling.groups - 1) * tiling.blocks + block,
        "add_mode": 2 if several else 1,
        "add": tiling.sums + block * tiling.rows if several else at + tiling.groups * tiling.blocks + block,
    }
