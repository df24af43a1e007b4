"""A linear layer as instructions: codes in memory in, codes or accumulators in memory out.

Rows are taken in tiles, outputs in sets of column blocks, either of them outermost; inputs in chunks. Results are
either scaled and encoded, for the next layer on the accelerator, or the accumulators of each channel group, for the
host: these it scales with the very roundings of its own kernel, so that both agree in every bit.

Codes and weights of more than 4 bits come as halves (SPEC 3.4). Both halves of a code meet a weight in the same sums,
through tables of 16 times the half and of the half; each half of a weight has sums of its own, which the vector unit
adds up, the high one's 16 times.

The array works without pause if what it needs is loaded in time and if its results leave in time. Chunks are loaded
some ahead of the array, into rings that hold several, so that short groups and long ones even out. The accumulators
have two halves: one set of sums leaves while the array makes the next. Instructions are dispatched in order and queues
are short, so what finishes a set stands between the GEMMs of the next.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np

from tvm_ahcq.codegen.isa.dependency_tokens import Entry
from tvm_ahcq.codegen.isa.layout import decode_table, encode_table, fixed_scale, pack_codes, weight_tiles
from tvm_ahcq.codegen.lower.address_space import DeviceMemory

from .buffer_rings import ChunkRing, Rings
from .stage import HALF_BITS
from .tiling import Tiling


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


@dataclass(frozen=True)
class _Chunk:
    """A GEMM and what belongs to it.

    Attributes
    ----------
    loads : list of Entry
        What it needs, some chunks ahead of it.
    entries : list of Entry
        It, behind what else has to be loaded until its sums are complete.
    left : int
        Chunks that follow until the sums of its part are complete.
    finish : list of list of Entry
        Of the last of them: what then takes the sums away, by column block.
    """

    loads: list[Entry]
    entries: list[Entry]
    left: int
    finish: list[list[Entry]]


class _Lowering:
    def __init__(self, memory: DeviceMemory, tiling: Tiling, source: int, result: int) -> None:
        self.tiling, self.stage, self.config = tiling, tiling.stage, tiling.config
        self.source, self.result, self.rings = source, result, Rings()
        self.ring = ChunkRing(tiling.resident, tiling.largest, tiling.ahead)
        self.word, self.half = self.config.dim // 2, self.config.acc_depth // 2
        self.inputs = sum(self.stage.group_sizes) // self.config.dim  # blocks of a half
        self.first_step = [0, *np.cumsum(self.stage.group_sizes) // self.config.dim]
        self.parameters_at, self.parameters_of = 0, -1
        self._place(memory)

    def _place(self, memory: DeviceMemory) -> None:
        stage, dim = self.stage, self.config.dim
        zeros = np.zeros(self.tiling.zeros * dim, np.uint8)
        zeros[: len(stage.zero)] = stage.zero
        self.weights = memory.constant(pack_codes(weight_tiles(stage.weight, dim)))
        self.zero_points = memory.constant(pack_codes(zeros))
        self.decode = memory.constant(np.concatenate([decode_table(table) for table in stage.tables]))
        if stage.encoder is None:
            last = stage.weight_halves - 1
            shifts = [field.offset + HALF_BITS * (last - half) for field in stage.fields for half in range(last + 1)]
            scales = [fixed_scale(np.full(dim, 2.0**shift), 0) for shift in shifts]
            self.parameters = memory.constant(np.concatenate(scales).astype(np.int32))
            return
        encoder = stage.encoder
        bias = np.rint(encoder.bias * 2.0**encoder.fraction_bits).astype(np.int32)[None]
        self.parameters = memory.constant(np.concatenate([*encoder.scales(), bias]).astype(np.int32))
        self.encode = memory.constant(encode_table(encoder.thresholds, encoder.codes))

    def entries(self) -> Iterator[Entry]:
        """Tables, then the chunks: each loaded ahead, and between them what finishes the sums before them."""
        yield from self._tables()
        ahead: deque[_Chunk] = deque()
        waiting: deque[list[Entry]] = deque()  # what finishes the part before the one that the array is at
        for chunk in self._chunks():
            yield from chunk.loads
            ahead.append(chunk)
            if len(ahead) > self.tiling.ahead:
                yield from self._multiply(ahead.popleft(), waiting)
        while ahead:
            yield from self._multiply(ahead.popleft(), waiting)
        for finish in waiting:
            yield from finish

    def _multiply(self, chunk: _Chunk, waiting: deque[list[Entry]]) -> Iterator[Entry]:
        """A GEMM, and a share of what waits; all of it before the next part but one takes its accumulators."""
        yield from chunk.entries
        for _ in range(-(-len(waiting) // (chunk.left + 1))):
            yield from waiting.popleft()
        if not chunk.left:
            waiting.extend(chunk.finish)

    def _tables(self) -> Iterator[Entry]:
        tiling, tables = self.tiling, len(self.stage.tables)
        yield "load", {"memory": "decode", "rows": 1, "length": 8 * tables, "address": self.decode}
        if self.stage.encoder is not None:
            yield "load", {"memory": "encode", "rows": 1, "length": 32, "address": self.encode}
        else:
            length = self.stage.sums * self.config.dim // 2
            yield "load", {"memory": "vec", "rows": 1, "length": length, "address": self.parameters}
        chunks = tiling.zeros * self.config.dim // 16
        yield "load", {"memory": "wgt", "rows": 1, "length": chunks, "address": self.zero_points}

    def _chunks(self) -> Iterator[_Chunk]:
        """All chunks: of each tile of rows and each set of column blocks, each part of the groups."""
        tiling, outputs = self.tiling, self.stage.outputs // self.config.dim
        tiles, sets = range(0, self.stage.rows, tiling.rows), range(0, outputs, tiling.blocks)
        order: Iterable[tuple[int, int]] = product(tiles, sets)
        if tiling.columns_first:
            order = ((first, block) for block, first in product(sets, tiles))
        for first, block in order:
            count, blocks = min(tiling.rows, self.stage.rows - first), min(tiling.blocks, outputs - block)
            scales = self._scales(block, blocks)
            for groups in self.stage.parts:
                yield from self._part(first, count, block, blocks, groups, scales)
                scales = []

    def _part(
        self, first: int, count: int, block: int, blocks: int, groups: list[int], scales: list[Entry]
    ) -> list[_Chunk]:
        """Chunks of the groups whose sums leave together."""
        half, products = self.rings.slot("acc", 2) * self.half, []
        for place, sums in enumerate(self._sums(groups)):
            acc = half + place * self.tiling.blocks * self.tiling.rows
            products += self._products(first, count, block, blocks, *sums, acc)
        if self.stage.encoder is None:
            finish = [self._accumulators(first, count, block, i, groups, half) for i in range(blocks)]
        else:
            finish = [self._scaled(first, count, block, i, groups[0], half) for i in range(blocks)]
        last = len(products) - 1
        return [
            _Chunk(loads, [*(scales if i == 0 else []), gemm], last - i, finish if i == last else [])
            for i, (loads, gemm) in enumerate(products)
        ]

    def _sums(self, groups: list[int]) -> list[tuple[int, int]]:
        """Accumulators of some groups: group, and half of its weights."""
        return list(product(groups, range(self.stage.weight_halves)))

    def _scales(self, block: int, blocks: int) -> list[Entry]:
        """Makes room for the sums of a set, where it is encoded; loads its scales and biases if they are not there."""
        tiling, config = self.tiling, self.config
        if self.stage.encoder is None:
            return []
        self.sums = [self._slot() for _ in range(blocks)]
        if block == self.parameters_of:
            return []
        self.parameters_at, self.parameters_of = self.rings.slot("vec", 2) * tiling.parameters, block
        return [
            (
                "load",
                {
                    "memory": "vec",
                    "rows": 2 * tiling.groups + 1,
                    "length": blocks * config.dim // 2,
                    "sp": self.parameters_at,
                    "sp_stride": tiling.blocks,
                    "address": self.parameters + 4 * config.dim * block,
                    "stride": 4 * self.stage.outputs,
                },
            )
        ]

    def _slot(self) -> int:
        return 2 * self.tiling.parameters + self.rings.slot("sums", self.tiling.slots) * self.tiling.rows

    def _products(
        self, first: int, count: int, block: int, blocks: int, group: int, half: int, acc: int
    ) -> list[tuple[list[Entry], Entry]]:
        """The accumulators of one group of channels and half of its weights: loads and GEMM of each chunk."""
        tiling, dim, total, halves = self.tiling, self.config.dim, self.stage.rows, self.stage.weight_halves
        zeros = half * (self.stage.outputs // dim)
        chunks: list[tuple[list[Entry], Entry]] = []
        for codes, steps, step in self._steps(group):
            place = self.ring.place(steps)
            act, wgt = place * tiling.rows, tiling.zeros + place * tiling.blocks * dim
            loads: list[Entry] = [
                (
                    "load",
                    {
                        "memory": "act",
                        "rows": steps,
                        "length": count * self.word // 8,
                        "sp": act,
                        "sp_stride": tiling.rows,
                        "address": self.source + ((codes * self.inputs + step) * total + first) * self.word,
                        "stride": total * self.word,
                    },
                ),
                (
                    "load",
                    {
                        "memory": "wgt",
                        "rows": blocks,
                        "length": steps * dim * self.word // 8,
                        "sp": wgt,
                        "sp_stride": steps * dim,
                        "stride": halves * self.inputs * dim * self.word,
                        "address": self.weights + ((block * halves + half) * self.inputs + step) * dim * self.word,
                    },
                ),
            ]
            chunks.append(
                (
                    loads,
                    (
                        "gemm",
                        {
                            "rows": count,
                            "steps": steps,
                            "blocks": blocks,
                            "act": act,
                            "act_stride": tiling.rows,
                            "wgt": wgt,
                            "wgt_stride": dim,
                            "wgt_block": steps * dim,
                            "zero": zeros + block,
                            "zero_vector": 1,
                            "acc": acc,
                            "acc_block": tiling.rows,
                            "decode": codes if self.stage.code_halves > 1 else group,
                            "accumulate": int(len(chunks) > 0),
                        },
                    ),
                )
            )
        return chunks

    def _steps(self, group: int) -> Iterator[tuple[int, int, int]]:
        """Half of the codes, length, and first input block of each chunk of a group."""
        for half in range(self.stage.code_halves):
            step = int(self.first_step[group])
            for steps in self.tiling.chunks[group]:
                yield half, steps, step
                step += steps

    def _scaled(self, first: int, count: int, block: int, i: int, group: int, half: int) -> list[Entry]:
        """Adds up the groups of one column block; behind the last group, encodes and stores them."""
        tiling, last = self.tiling, group + 1 == self.tiling.groups
        at, sums = self.parameters_at, self.sums[i]
        slots = min(4, self.config.out_depth // tiling.rows)
        target = self.rings.slot("out", slots) * tiling.rows if last else sums
        scaled = {"rows": count, "blocks": 1, "acc": half + i * tiling.rows}
        entries: list[Entry] = [
            (
                "scale",
                {
                    **scaled,
                    "memory": "vec",
                    "mult": at + group * tiling.blocks + i,
                    "add_mode": 2 if group else 1,
                    "add": sums if group else at + 2 * tiling.groups * tiling.blocks + i,
                    "dst": sums,
                },
            ),
            (
                "scale",
                {
                    **scaled,
                    "memory": "out" if last else "vec",
                    "mult": at + (tiling.groups + group) * tiling.blocks + i,
                    "add_mode": 2,
                    "add": sums,
                    "dst": target,
                },
            ),
        ]
        if last:
            entries.append(
                (
                    "store",
                    {
                        "memory": "out",
                        "rows": 1,
                        "length": count * self.word // 8,
                        "sp": target,
                        "address": self.result + ((block + i) * self.stage.rows + first) * self.word,
                    },
                )
            )
        return entries

    def _accumulators(self, first: int, count: int, block: int, i: int, groups: list[int], half: int) -> list[Entry]:
        """Stores the sums of one column block, those of several groups in one word."""
        tiling, dim, slot = self.tiling, self.config.dim, self._slot()
        entries: list[Entry] = []
        for place, (group, part) in enumerate(self._sums(groups)):
            addend = {"add_mode": 2, "add": slot} if place else {}
            mult = group * self.stage.weight_halves + part
            entries.append(
                (
                    "scale",
                    {
                        "memory": "vec",
                        "rows": count,
                        "blocks": 1,
                        "mult": mult,
                        "dst": slot,
                        "acc": half + (place * tiling.blocks + i) * tiling.rows,
                        **addend,
                    },
                )
            )
        word = self.stage.fields[groups[0]].word
        at = (word * (self.stage.outputs // dim) + block + i) * self.stage.rows + first
        entries.append(
            (
                "store",
                {
                    "memory": "vec",
                    "rows": 1,
                    "length": count * dim // 2,
                    "sp": slot,
                    "address": self.result + 4 * dim * at,
                },
            )
        )
        return entries
