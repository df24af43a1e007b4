"""Sizes of a grouped-scale GEMM: what its kernels, and the records of tuning, are told apart by."""

from __future__ import annotations

from dataclasses import dataclass

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
        Bits of a weight's code; fewer than 8 bound the operands by ``2**weight_bits - 1``, which AVX2 and plain NEON
        turn into speed.
    """

    outputs: int
    channels: int
    groups: int
    weight_bits: int = 8

    def __str__(self) -> str:
        return f"{self.outputs} x {self.channels}, {self.groups} groups, {self.weight_bits} bits"

    @property
    def blocks(self) -> int:
        """Blocks of 16 outputs, the last one padded."""
        return -(-self.outputs // LANES)
