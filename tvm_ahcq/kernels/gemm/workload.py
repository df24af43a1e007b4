"""Sizes of a grouped-scale GEMM: what its kernels, and the records of tuning, are told apart by."""

from __future__ import annotations

from dataclasses import dataclass, field

from tvm_ahcq.kernels.common.vector import LANES


@dataclass(frozen=True, order=True)
class LinearWorkload:
    """Sizes of a grouped-scale GEMM that its kernel depends on; the number of rows is a run-time value.

    Attributes
    ----------
    outputs : int
        Columns of the result.
    channels : int
        Input channels, padding included.
    groups : int
        Channel groups. Which channels form a group is known at run time only, so that layers of one shape share a
        kernel.
    weight_bits : int
        Bits of a weight's code; fewer than 8 bound the weights by ``2**weight_bits - 1``, which AVX2 and plain NEON
        turn into speed.
    operand_max : int
        Greatest operand. No part of the identity of a workload, since tuning knows shapes alone.
    exact_steps : int
        Successive quadruples of channels whose products are proven to fit a 16-bit sum, from the weights themselves
        (:func:`tvm_ahcq.quantizers.core.narrow_sums.exact_steps`); 0 to derive them from `weight_bits` and
        `operand_max`. No part of the identity either.
    """

    outputs: int
    channels: int
    groups: int
    weight_bits: int = 8
    operand_max: int = field(default=255, compare=False)
    exact_steps: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.outputs} x {self.channels}, {self.groups} groups, {self.weight_bits} bits"

    @property
    def blocks(self) -> int:
        """Blocks of 16 outputs, the last one padded."""
        return -(-self.outputs // LANES)
