"""Sizes of a linear layer's loops, and the places of its parts in the scratchpads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.generated.isa import Load
from tvm_ahcq.codegen.lower.tiles import LinearTile
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.operator_shapes import LinearShape

from .stage import LinearStage

MAX_TABLES = 4
"""Decode tables that the array holds: of groups, or of both halves of wider codes."""

ROWS = (64, 128, 256, 32, 16, 8)
"""Rows of a tile that are tried."""

MAX_BLOCKS = 16
"""Column blocks of a set that are tried."""

_CHUNKS = 4
"""Chunks of inputs that scratchpads hold where they can: one in the array, the others loaded or on their way."""

AHEAD = 2
"""Most chunks whose loads stand in front of a GEMM, unless tuning says otherwise."""

_LONGEST = (1 << Load.layout["length"].width) - 1
"""Chunks of 8 bytes that a row of a LOAD or STORE has at most."""

_SLOTS = 6
"""Results on their way to memory: each gives the vector unit a token, and a counter holds 15."""


@dataclass(frozen=True)
class Tiling:
    """Sizes of the loops, and the places of the parts in the scratchpads (words).

    Attributes
    ----------
    rows : int
        Of a tile.
    blocks : int
        Column blocks of a set.
    chunk : int
        Most input blocks of a chunk.
    most_ahead : int
        Most chunks whose loads stand in front of a GEMM.
    columns_first : bool
        True if all rows meet a set of column blocks before the next set.
    """

    config: Config
    stage: LinearStage
    rows: int
    blocks: int
    chunk: int = 1
    most_ahead: int = AHEAD
    columns_first: bool = False

    @property
    def tile(self) -> LinearTile:
        """The choices alone, as a tile."""
        return LinearTile(self.rows, self.blocks, self.chunk, self.most_ahead, self.columns_first)

    @cached_property
    def zeros(self) -> int:
        """Number of words of zero points, at the start of ``wgt``; whole chunks of memory."""
        granule = max(1, 16 // self.config.dim)
        return -(-self.stage.weight_halves * self.stage.outputs // self.config.dim // granule) * granule

    @cached_property
    def groups(self) -> int:
        """Number of channel groups."""
        return len(self.stage.group_sizes)

    @cached_property
    def together(self) -> int:
        """Most accumulators of an output that are in the array at a time."""
        return max(map(len, self.stage.parts)) * self.stage.weight_halves

    @property
    def resident(self) -> int:
        """Input blocks, of a tile of rows and of the weights of a set, that the scratchpads hold."""
        weights = (self.config.wgt_depth - self.zeros) // (self.blocks * self.config.dim)
        return min(self.config.act_depth // self.rows, weights)

    @cached_property
    def largest(self) -> int:
        """Input blocks of the largest chunk."""
        return max(map(max, self.chunks))

    @cached_property
    def chunks(self) -> list[list[int]]:
        """Input blocks of the chunks of each group, of one size: a short one would leave too little time to load."""
        return [even_parts(size // self.config.dim, self.chunk) for size in self.stage.group_sizes]

    @property
    def ahead(self) -> int:
        """Chunks whose loads stand in front of a GEMM; the ring holds one more, and loses up to one at its end."""
        return min(self.most_ahead, self.resident // self.largest - 2)

    @property
    def parameters(self) -> int:
        """Words of ``vec`` for scales and biases of a set, two of which are there; of sums, half a scale a group."""
        return (2 * self.groups + 1) * self.blocks if self.stage.encoder is not None else -(-self.stage.sums // 2)

    @property
    def slots(self) -> int:
        """Column blocks of a tile that fit ``vec`` behind the parameters."""
        most = 2 * self.blocks if self.stage.encoder is not None else _SLOTS
        return min(most, (self.config.vec_depth - 2 * self.parameters) // self.rows)

    @property
    def fits(self) -> bool:
        """True if it fits the scratchpads."""
        return (
            self.resident >= 2 * self.chunk
            and self.together * self.blocks * self.rows <= self.config.acc_depth // 2
            and self.rows <= self.config.out_depth
            and max(self.rows * self.config.dim // 2, self.chunk * self.config.dim**2 // 16) <= _LONGEST
            and self.slots >= (self.blocks if self.stage.encoder is not None else 1)
        )

    @property
    def busiest(self) -> float:
        """Cycles of the busiest unit for each cycle of the array, if all others are hidden behind it."""
        dim, beat = self.config.dim, self.config.beat_bytes
        blocks = min(self.blocks, self.stage.outputs // dim)
        halves = self.stage.code_halves * self.stage.weight_halves
        rows, steps = min(self.rows, self.stage.rows), halves * sum(self.stage.group_sizes) // dim
        load = dim / 2 / beat * (1 / blocks + dim / rows)
        coded = self.stage.encoder is not None
        sent = dim / 2 if coded else 4 * dim * len(self.stage.parts)
        vector = (1 + coded) * self.stage.sums * dim / self.config.lanes
        return max(1.0, load, sent / beat / steps, vector / steps)


def even_parts(total: int, most: int) -> list[int]:
    """Split `total` into as few nearly equal numbers up to `most` as possible."""
    count = -(-total // most)
    return [(total * (i + 1)) // count - total * i // count for i in range(count)]


def shape_of(rows: int, channels: int, stage: LinearStage) -> LinearShape:
    """Return the tuning key of a layer; rows of all runs, and channels without padding."""
    words = tuple(map(len, stage.parts)) if stage.encoder is None else (1,) * len(stage.group_sizes)
    halves = stage.code_halves, stage.weight_halves
    return LinearShape(rows, stage.outputs, channels, words, stage.encoder is not None, stage.group_sizes, *halves)


def tiling_of(config: Config, stage: LinearStage, tile: LinearTile) -> Tiling:
    """Return the tiling of a tile, whether it fits or not."""
    return Tiling(config, stage, tile.rows, tile.blocks, tile.chunk, tile.ahead, tile.columns_first)


def candidates(config: Config, stage: LinearStage) -> list[Tiling]:
    """Return every tiling that fits.

    Raises
    ------
    DeviceError
        If the layer does not fit the accelerator.
    """
    outputs, inputs = stage.weight.shape
    if stage.rows % 8 or outputs % config.dim or inputs != sum(stage.group_sizes) * stage.weight_halves:
        raise DeviceError(f"rows must be a multiple of 8 and outputs of {config.dim}; they are {stage.rows}, {outputs}")
    if len(stage.tables) > MAX_TABLES or any(size % config.dim for size in stage.group_sizes):
        raise DeviceError(f"groups {stage.group_sizes}: at most {MAX_TABLES}, each of a multiple of {config.dim}")
    if stage.encoder is not None and max(stage.code_halves, stage.weight_halves) > 1:
        raise DeviceError("codes or weights of more than 4 bits: their sums are for the host, not for another layer")
    tilings = []
    for rows in dict.fromkeys(min(size, stage.rows) for size in ROWS):
        for blocks in range(min(MAX_BLOCKS, outputs // config.dim), 0, -1):
            tiling = Tiling(config, stage, rows, blocks)
            most = max(1, 16 * _LONGEST // config.dim**2)
            tiling = replace(tiling, chunk=min(most, max(1, tiling.resident // _CHUNKS)))
            tilings += [tiling] if tiling.fits else []
    if not tilings:
        raise DeviceError(
            f"{outputs // config.dim} column blocks in {len(stage.group_sizes)} groups do not fit {config.name}"
        )
    return tilings


def choose_tiling(config: Config, stage: LinearStage) -> Tiling:
    """Return the default tiling: of those whose busiest unit is within 1% of the least busy, that of least traffic.

    Raises
    ------
    DeviceError
        If the layer does not fit the accelerator.
    """
    tilings = candidates(config, stage)
    least = min(tiling.busiest for tiling in tilings)
    return max((tiling for tiling in tilings if tiling.busiest <= 1.01 * least), key=_spare)


def _spare(tiling: Tiling) -> float:
    """Spare bandwidth of the memory, which hides latencies."""
    return -(1 / tiling.blocks + tiling.config.dim / tiling.rows)
