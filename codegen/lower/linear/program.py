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

from tvm_ahcq.codegen.isa.generated.isa import Gemm, Instruction, Load, Scale, Store
from tvm_ahcq.codegen.lower.address_space import DeviceMemory

from .addresses import place_linear
from .buffer_rings import ChunkRing, RingBuffers
from .tiling import Tiling

_OUT_BUFFERS = 4
"""Most results of a column block on their way to memory, where they are codes."""


def linear_instructions(memory: DeviceMemory, tiling: Tiling, source: int, result: int) -> list[Instruction]:
    """Return the instructions of a layer, without tokens.

    Parameters
    ----------
    memory : DeviceMemory
        Receives weights and tables.
    tiling : Tiling
        Layer and sizes.
    source, result : int
        Addresses of the codes ``(K / Dim, rows, Dim)`` and of the result.
    """
    return list(_Lowering(memory, tiling, source, result).instructions())


@dataclass(frozen=True)
class _OutputTile:
    """A tile of rows and a set of column blocks: first row, number of rows, first block, number of blocks."""

    first: int
    rows: int
    block: int
    blocks: int


@dataclass(frozen=True)
class _Chunk:
    """A GEMM and the instructions that belong to it.

    Attributes
    ----------
    loads : list of Instruction
        Loads of its operands, some chunks ahead of it.
    instructions : list of Instruction
        The GEMM, behind other loads that are needed until its sums are complete.
    left : int
        Chunks that follow until the sums of its part are complete.
    finish : list of list of Instruction
        Of the last of them: instructions that then take the sums away, by column block.
    """

    loads: list[Instruction]
    instructions: list[Instruction]
    left: int
    finish: list[list[Instruction]]


class _Lowering:
    def __init__(self, memory: DeviceMemory, tiling: Tiling, source: int, result: int) -> None:
        self.tiling, self.stage, self.config = tiling, tiling.stage, tiling.config
        self.source, self.result, self.buffers = source, result, RingBuffers()
        self.addresses = place_linear(tiling, memory)
        self.ring = ChunkRing(tiling.resident, tiling.largest, tiling.ahead)
        self.word, self.half = self.config.dim // 2, self.config.acc_depth // 2
        self.inputs = sum(self.stage.group_sizes) // self.config.dim  # blocks of a half
        self.first_step = [0, *np.cumsum(self.stage.group_sizes) // self.config.dim]
        self.parameters_at, self.parameters_of = 0, -1

    def instructions(self) -> Iterator[Instruction]:
        """Yield tables, then chunks: each loaded ahead, and between them what finishes the sums before them."""
        yield from self._tables()
        ahead: deque[_Chunk] = deque()
        waiting: deque[list[Instruction]] = deque()  # what finishes the part before the one that the array is at
        for chunk in self._chunks():
            yield from chunk.loads
            ahead.append(chunk)
            if len(ahead) > self.tiling.ahead:
                yield from self._multiply(ahead.popleft(), waiting)
        while ahead:
            yield from self._multiply(ahead.popleft(), waiting)
        for finish in waiting:
            yield from finish

    def _multiply(self, chunk: _Chunk, waiting: deque[list[Instruction]]) -> Iterator[Instruction]:
        """A GEMM, and a share of what waits; all of it before the next part but one takes its accumulators."""
        yield from chunk.instructions
        for _ in range(-(-len(waiting) // (chunk.left + 1))):
            yield from waiting.popleft()
        if not chunk.left:
            waiting.extend(chunk.finish)

    def _tables(self) -> Iterator[Instruction]:
        dim, addresses = self.config.dim, self.addresses
        yield Load(memory="decode", rows=1, length=8 * len(self.stage.tables), address=addresses.decode)
        if self.stage.encoder is not None:
            yield Load(memory="encode", rows=1, length=32, address=addresses.encode)
        else:
            yield Load(memory="vec", rows=1, length=self.stage.sums * dim // 2, address=addresses.parameters)
        yield Load(memory="wgt", rows=1, length=self.tiling.zeros * dim // 16, address=addresses.zero_points)

    def _chunks(self) -> Iterator[_Chunk]:
        """All chunks: of each tile of rows and each set of column blocks, each part of the groups."""
        tiling, outputs = self.tiling, self.stage.outputs // self.config.dim
        tiles, sets = range(0, self.stage.rows, tiling.rows), range(0, outputs, tiling.blocks)
        order: Iterable[tuple[int, int]] = product(tiles, sets)
        if tiling.columns_first:
            order = ((first, block) for block, first in product(sets, tiles))
        for first, block in order:
            rows, blocks = min(tiling.rows, self.stage.rows - first), min(tiling.blocks, outputs - block)
            tile = _OutputTile(first, rows, block, blocks)
            scales = self._scales(tile)
            for groups in self.stage.parts:
                yield from self._part(tile, groups, scales)
                scales = []

    def _part(self, tile: _OutputTile, groups: list[int], scales: list[Instruction]) -> list[_Chunk]:
        """Chunks of the groups whose sums leave together."""
        acc, products = self.buffers.slot("acc", 2) * self.half, []
        for number, (group, weight_half) in enumerate(self._sums(groups)):
            at = acc + number * self.tiling.blocks * self.tiling.rows
            products += self._products(tile, group, weight_half, at)
        if self.stage.encoder is None:
            finish = [self._store_accumulators(tile, column, groups, acc) for column in range(tile.blocks)]
        else:
            finish = [self._store_codes(tile, column, groups[0], acc) for column in range(tile.blocks)]
        last = len(products) - 1
        return [
            _Chunk(loads, [*(scales if i == 0 else []), gemm], last - i, finish if i == last else [])
            for i, (loads, gemm) in enumerate(products)
        ]

    def _sums(self, groups: list[int]) -> list[tuple[int, int]]:
        """Accumulators of some groups: group, and half of its weights."""
        return list(product(groups, range(self.stage.weight_halves)))

    def _scales(self, tile: _OutputTile) -> list[Instruction]:
        """Reserve the sums of a set, where it is encoded; load its scales and biases if they are not there."""
        tiling, dim = self.tiling, self.config.dim
        if self.stage.encoder is None:
            return []
        self.sums = [self._sum_slot() for _ in range(tile.blocks)]
        if tile.block == self.parameters_of:
            return []
        self.parameters_at, self.parameters_of = self.buffers.slot("vec", 2) * tiling.parameters, tile.block
        return [
            Load(
                memory="vec",
                rows=2 * tiling.groups + 1,
                length=tile.blocks * dim // 2,
                sp=self.parameters_at,
                sp_stride=tiling.blocks,
                address=self.addresses.parameters + 4 * dim * tile.block,
                stride=4 * self.stage.outputs,
            )
        ]

    def _sum_slot(self) -> int:
        """Next place for the sums of a column block in ``vec``."""
        return 2 * self.tiling.parameters + self.buffers.slot("sums", self.tiling.slots) * self.tiling.rows

    def _products(
        self, tile: _OutputTile, group: int, weight_half: int, acc: int
    ) -> list[tuple[list[Instruction], Gemm]]:
        """The accumulators of one group of channels and half of its weights: loads and GEMM of each chunk."""
        tiling, dim = self.tiling, self.config.dim
        zeros = weight_half * (self.stage.outputs // dim)
        products: list[tuple[list[Instruction], Gemm]] = []
        for code_half, steps, step in self._steps(group):
            place = self.ring.place(steps)
            act, wgt = place * tiling.rows, tiling.zeros + place * tiling.blocks * dim
            loads: list[Instruction] = [
                self._load_codes(tile, code_half, steps, step, act),
                self._load_weights(tile, weight_half, steps, step, wgt),
            ]
            gemm = Gemm(
                rows=tile.rows,
                steps=steps,
                blocks=tile.blocks,
                act=act,
                act_stride=tiling.rows,
                wgt=wgt,
                wgt_stride=dim,
                wgt_block=steps * dim,
                zero=zeros + tile.block,
                zero_vector=1,
                acc=acc,
                acc_block=tiling.rows,
                decode=code_half if self.stage.code_halves > 1 else group,
                accumulate=int(len(products) > 0),
            )
            products.append((loads, gemm))
        return products

    def _steps(self, group: int) -> Iterator[tuple[int, int, int]]:
        """Half of the codes, length, and first input block of each chunk of a group."""
        for half in range(self.stage.code_halves):
            step = int(self.first_step[group])
            for steps in self.tiling.chunks[group]:
                yield half, steps, step
                step += steps

    def _load_codes(self, tile: _OutputTile, code_half: int, steps: int, step: int, sp: int) -> Load:
        block = code_half * self.inputs + step
        return Load(
            memory="act",
            rows=steps,
            length=tile.rows * self.word // 8,
            sp=sp,
            sp_stride=self.tiling.rows,
            address=self.source + (block * self.stage.rows + tile.first) * self.word,
            stride=self.stage.rows * self.word,
        )

    def _load_weights(self, tile: _OutputTile, weight_half: int, steps: int, step: int, sp: int) -> Load:
        dim, halves = self.config.dim, self.stage.weight_halves
        block = (tile.block * halves + weight_half) * self.inputs + step
        return Load(
            memory="wgt",
            rows=tile.blocks,
            length=steps * dim * self.word // 8,
            sp=sp,
            sp_stride=steps * dim,
            address=self.addresses.weights + block * dim * self.word,
            stride=halves * self.inputs * dim * self.word,
        )

    def _store_codes(self, tile: _OutputTile, column: int, group: int, acc: int) -> list[Instruction]:
        """Add a group to the sums of one column block; behind the last group, encode and store them."""
        tiling, is_last = self.tiling, group + 1 == self.tiling.groups
        parameters, sums, acc = self.parameters_at + column, self.sums[column], acc + column * tiling.rows
        slots = min(_OUT_BUFFERS, self.config.out_depth // tiling.rows)
        target = self.buffers.slot("out", slots) * tiling.rows if is_last else sums
        high = Scale(
            memory="vec",
            rows=tile.rows,
            blocks=1,
            acc=acc,
            mult=parameters + group * tiling.blocks,
            add_mode=2 if group else 1,
            add=sums if group else parameters + 2 * tiling.groups * tiling.blocks,
            dst=sums,
        )
        rest = Scale(
            memory="out" if is_last else "vec",
            rows=tile.rows,
            blocks=1,
            acc=acc,
            mult=parameters + (tiling.groups + group) * tiling.blocks,
            add_mode=2,
            add=sums,
            dst=target,
        )
        if not is_last:
            return [high, rest]
        address = self.result + ((tile.block + column) * self.stage.rows + tile.first) * self.word
        return [high, rest, Store(memory="out", rows=1, length=tile.rows * self.word // 8, sp=target, address=address)]

    def _store_accumulators(self, tile: _OutputTile, column: int, groups: list[int], acc: int) -> list[Instruction]:
        """Store the sums of one column block, those of several groups in one word."""
        tiling, dim, slot = self.tiling, self.config.dim, self._sum_slot()
        scales = [
            Scale(
                memory="vec",
                rows=tile.rows,
                blocks=1,
                acc=acc + (number * tiling.blocks + column) * tiling.rows,
                mult=group * self.stage.weight_halves + weight_half,
                add_mode=2 if number else 0,
                add=slot if number else 0,
                dst=slot,
            )
            for number, (group, weight_half) in enumerate(self._sums(groups))
        ]
        word = self.stage.fields[groups[0]].word
        block = word * (self.stage.outputs // dim) + tile.block + column
        address = self.result + 4 * dim * (block * self.stage.rows + tile.first)
        return [*scales, Store(memory="vec", rows=1, length=tile.rows * dim // 2, sp=slot, address=address)]
