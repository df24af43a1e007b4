"""An offloaded operator: its program, its constants, and the layout of its tensors in device memory."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.dependency_tokens import Tokens, dependency_tokens, encode_program
from tvm_ahcq.codegen.isa.generated.isa import Instruction
from tvm_ahcq.codegen.lower.linear.stage import SumField

from .address_space import DeviceMemory
from .cycle_model import CycleEstimate, estimate_cycles
from .tiles import Shape

_MOST_KNOWN = 64
_known_tokens: dict[Hashable, list[Tokens]] = {}
"""Tokens by the shape of operators: blocks of a model repeat a few."""


@dataclass(frozen=True, eq=False)
class InputLayout:
    """Layout of uint8 codes ``(total, channels)`` in device memory; see ``runtime/module/accelerator_program.h``.

    Each run of a program takes the next ``batch * rows`` of the rows. ``channel_at`` has the channel of each place, or
    :func:`constant_channel`. ``code_of`` is ``(parts, 256)``: codes of more than 4 bits lie as halves, each of them in
    an equal part of the places of ``channel_at``, the high ones first.
    """

    address: int
    total: int
    batch: int
    rows: int
    channels: int
    dim: int
    row_at: np.ndarray
    channel_at: np.ndarray
    code_of: np.ndarray


def constant_channel(code: int) -> int:
    """Return the entry of ``channel_at`` for a place that has the same code in every row; -1 for code 0."""
    return -1 - code


@dataclass(frozen=True, eq=False)
class OutputLayout:
    """Layout of results: int32 words ``(word, batch, block, place, dim)`` of float32 ``(total, channels)``.

    ``y = bias``, then for each group ``y = fma(float32(sum + correction), multiplier, y)``: the arithmetic of
    :func:`tvm_ahcq.quantizers.core.reference.grouped_linear`. ``correction`` ``(groups, channels)`` is None where the
    sums     contain it: decode tables of 4-bit codes hold what is left when the zero point is taken away.

    With a ``divisor`` of 1 or -1 the multipliers of a row are divided by float32(divisor times the number in the column
    behind the channels), the sum of its operands: the arithmetic of
    :func:`tvm_ahcq.quantizers.core.reference.log_attention`. There is one group then, whose sums are whole words.
    """

    address: int
    total: int
    batch: int
    rows: int
    blocks: int
    dim: int
    row_at: np.ndarray
    fields: tuple[SumField, ...]
    multiplier: np.ndarray
    bias: np.ndarray
    correction: np.ndarray | None = None
    divisor: int = 0

    @property
    def words(self) -> int:
        """Number of words that hold the sums of all groups."""
        return self.fields[-1].word + 1


@dataclass(frozen=True, eq=False)
class OffloadedOp:
    """One offloaded operator.

    Attributes
    ----------
    config : Config
        What it is for.
    instructions : list of Instruction
        Instructions without tokens; constants from ``CONSTANTS_AT`` on.
    memory : DeviceMemory
        Its constants, and the size of its scratch.
    inputs, output
        Between the host's tensors and device memory.
    token_key : hashable or None
        Equal for operators whose instructions differ in nothing but the numbers that they compute with, so that their
        tokens are equal too.
    shapes : tuple of Shape
        What tuning knows it by, each of its parts.
    tuned : bool
        Whether tuning chose the tile of any of them.
    batched : bool
        Whether its work grows with the prompts of a call: tensors then have any number of times the rows that ``total``
        of inputs and output says, known when it is called.
    times : int
        That number in a call with one prompt, which runs, cycles and bytes are for: 1 where ``total`` are the rows of a
        prompt, its tokens where a row is taken alone.
    """

    config: Config
    instructions: list[Instruction]
    memory: DeviceMemory
    inputs: tuple[InputLayout, ...]
    output: OutputLayout
    token_key: Hashable = None
    shapes: tuple[Shape, ...] = ()
    tuned: bool = False
    batched: bool = False
    repeats: int = 1

    @cached_property
    def tokens(self) -> list[Tokens]:
        """Tokens of the instructions."""
        if self.token_key is None:
            return dependency_tokens(self.instructions, self.config)
        if self.token_key not in _known_tokens:
            if len(_known_tokens) == _MOST_KNOWN:
                _known_tokens.pop(next(iter(_known_tokens)))
            _known_tokens[self.token_key] = dependency_tokens(self.instructions, self.config)
        return _known_tokens[self.token_key]

    @cached_property
    def program(self) -> bytes:
        """The instructions, with tokens."""
        return encode_program(self.instructions, self.tokens)

    @property
    def runs(self) -> int:
        """Number of runs of the program, each on the next rows."""
        return -(-self.repeats * self.output.total // (self.output.batch * self.output.rows))

    @cached_property
    def estimate(self) -> CycleEstimate:
        """Estimate of one run."""
        return estimate_cycles(self.instructions, self.tokens, self.config)

    @property
    def cycles(self) -> int:
        """Estimate of the cycles of all these runs."""
        return self.runs * self.estimate.cycles

    @property
    def transfer_bytes(self) -> int:
        """Bytes between the host and the device's memory, in all these runs."""
        codes = sum(x.batch * len(x.row_at) * len(x.channel_at) // 2 for x in self.inputs)
        places = self.output.batch * self.output.blocks * len(self.output.row_at) * self.output.dim
        return self.runs * (codes + 4 * self.output.words * places)
