"""Matrix products of the image encoders that can be tuned for without a bundle."""

from __future__ import annotations

from tvm_ahcq.models.registry import encoders
from tvm_ahcq.models.shapes import LinearSize
from tvm_ahcq.tune.records import LinearWorkload

_GROUPS, _BITS = 4, 4


def encoder_workloads(name: str) -> dict[LinearWorkload, int]:
    """Return the grouped GEMMs of an encoder with 4-bit weights, and the rows that each is tuned for.

    Parameters
    ----------
    name : str
        One of :func:`tvm_ahcq.models.registry.encoders`.
    """
    return {_workload(layer): layer.rows for layer in encoders()[name].linear}


def _workload(layer: LinearSize) -> LinearWorkload:
    """Return the workload of a layer; each channel group is filled up to a multiple of 4 channels."""
    if layer.grouped:
        return LinearWorkload(layer.outputs, layer.inputs + 3 * _GROUPS, _GROUPS, _BITS, 2**_BITS - 1)
    return LinearWorkload(layer.outputs, layer.inputs, 1, _BITS, 2**_BITS - 1)
