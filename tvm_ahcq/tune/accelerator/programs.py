"""Programs of operators with random numbers, for measurements: their cycles depend on sizes alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import insert_dependency_tokens
from tvm_ahcq.codegen.isa.generated.isa import Instruction
from tvm_ahcq.codegen.lower.address_space import DeviceMemory
from tvm_ahcq.codegen.lower.attention.addresses import place_attention
from tvm_ahcq.codegen.lower.attention.operator import heads_of_a_run
from tvm_ahcq.codegen.lower.attention.plan import AttentionPlan, AttentionStage
from tvm_ahcq.codegen.lower.attention.stream import stream_instructions
from tvm_ahcq.codegen.lower.linear.layer import rows_of_a_run
from tvm_ahcq.codegen.lower.linear.program import linear_instructions
from tvm_ahcq.codegen.lower.linear.stage import Encoder, LinearStage, SumField
from tvm_ahcq.codegen.lower.linear.tiling import tiling_of
from tvm_ahcq.codegen.lower.standalone import StandaloneProgram, standalone
from tvm_ahcq.codegen.lower.tile_space import TileSpace, attention_space, linear_space
from tvm_ahcq.codegen.lower.tiles import AttentionTile, LinearTile, Tile
from tvm_ahcq.codegen.lower.verify import verify
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.runtime.operator_shapes import AttentionShape, LinearShape, Shape

_FIELD_BITS = 5
"""Between the sums that share a word: of no use to anyone, but four fit."""

_TABLES = ("rel_h", "rel_w")


@dataclass(frozen=True, kw_only=True)
class TileProgram(StandaloneProgram):
    """A program for one tile.

    Attributes
    ----------
    config : str
        Name of the configuration.
    runs : int
        Runs until the operator is done, each on the next rows or heads.
    """

    config: str
    runs: int


@dataclass(frozen=True)
class TileTask:
    """An operator to choose a tile for; its programs are those of compile, but for the numbers in them.

    Attributes
    ----------
    config : Config
        Accelerator.
    shape : Shape
        The operator.
    """

    config: Config
    shape: Shape

    @cached_property
    def stage(self) -> LinearStage | AttentionStage:
        """The operator; of a linear layer, the rows of one run."""
        if isinstance(self.shape, LinearShape):
            return linear_stage(self.config, self.shape)
        return attention_stage(self.shape)

    @cached_property
    def space(self) -> TileSpace:
        """The search space.

        Raises
        ------
        DeviceError
            If the operator does not fit the accelerator.
        """
        if isinstance(self.stage, LinearStage):
            return linear_space(self.config, self.stage)
        return attention_space(self.config, self.stage)

    def program(self, tile: Tile) -> TileProgram:
        """Return the program with this tile, as compile makes it, verified.

        Raises
        ------
        DeviceError
            If it does not fit the accelerator, needs too many tokens, or fails the verifier.
        """
        memory = DeviceMemory()
        if isinstance(self.stage, LinearStage) and isinstance(tile, LinearTile):
            instructions, runs = self._linear(memory, self.stage, tile)
        elif isinstance(self.stage, AttentionStage) and isinstance(tile, AttentionTile):
            instructions, runs = self._attention(memory, self.stage, tile)
        else:
            raise DeviceError(f"{tile} is no tile of {self.shape}")
        placed = standalone(memory, insert_dependency_tokens(instructions, self.config))
        verify(placed.program, self.config, placed.start)
        return TileProgram(**vars(placed), config=self.config.name, runs=runs)

    def _linear(self, memory: DeviceMemory, stage: LinearStage, tile: LinearTile) -> tuple[list[Instruction], int]:
        tiling = tiling_of(self.config, stage, tile)
        if not tiling.fits:
            raise DeviceError(f"{tile} does not fit the scratchpads of {self.config.name}")
        assert isinstance(self.shape, LinearShape)
        codes = stage.rows * stage.code_halves * sum(stage.group_sizes)
        source, result = memory.scratch(codes // 2), memory.scratch(stage.result_bytes())
        return linear_instructions(memory, tiling, source, result), -(-self.shape.rows // stage.rows)

    def _attention(
        self, memory: DeviceMemory, whole: AttentionStage, tile: AttentionTile
    ) -> tuple[list[Instruction], int]:
        heads = heads_of_a_run(AttentionPlan(self.config, whole, tile.queries, tile.lines, tile.lag))
        stage = attention_stage(self.shape, heads)
        plan = AttentionPlan(self.config, stage, tile.queries, tile.lines, tile.lag)
        return stream_instructions(plan, place_attention(plan, memory)), whole.heads // heads


def linear_stage(config: Config, shape: LinearShape) -> LinearStage:
    """Return one run of a linear layer with random weights."""
    rng, groups, inputs = np.random.default_rng(0), len(shape.group_sizes), sum(shape.group_sizes)
    codes, halves = shape.code_halves, shape.weight_halves
    weight = rng.integers(0, 16, (shape.outputs, halves * inputs)).astype(np.uint8)
    fields = [
        SumField(word, _FIELD_BITS * i, _FIELD_BITS) for word, count in enumerate(shape.words) for i in range(count)
    ]
    rows = rows_of_a_run(shape.rows, codes * halves * shape.outputs * inputs / config.dim**2)
    encoder = None
    if shape.encoded:
        multiplier = np.full((groups, shape.outputs), 1e-3)
        encoder = Encoder(multiplier, np.zeros(shape.outputs), 8, np.arange(31, dtype=np.int32), np.arange(32) // 2)
    tables = np.tile(np.arange(16) - 8, (groups if codes == 1 else codes, 1))
    zero = np.full(halves * shape.outputs, 8, np.uint8)
    return LinearStage(rows, weight, zero, shape.group_sizes, tables, tuple(fields), encoder, codes, halves)


def attention_stage(shape: Shape, heads: int | None = None) -> AttentionStage:
    """Return an attention with random tables of relative positions, or some of its heads."""
    assert isinstance(shape, AttentionShape)
    rng, channels = np.random.default_rng(0), shape.channels
    codes = UniformParams(bits=4, scale=0.2, zero_point=8)
    tables = {name: rng.normal(size=(2 * side - 1, channels)) for name, side in zip(_TABLES, shape.sides, strict=False)}
    constants, rel_h, rel_w = attention_constants(
        AttentionQuantizers(codes, codes, codes, RowRelativeParams(bits=4, alpha=20.0)),
        scale=channels**-0.5,
        head_dim=channels,
        **tables,
    )
    return AttentionStage(heads or shape.heads, shape.queries, shape.keys, channels, constants, rel_h, rel_w)
