"""Equalisation, the driver: find the factors of scale exchanges and the offsets of keys, before calibration.

Scales move between a LayerNorm and its readers, between queries and keys, values and projection, and the two layers of
the decoder's MLPs; keys are centred, since softmax ignores what all keys share. The float model computes the same. See
docs/quantizers.md#equalisation; the mathematics is in :mod:`tvm_ahcq.quantizers.weight.equalise`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from tvm.ir import IRModule

from tvm_ahcq.quantizers.weight.equalise import (
    Exchange,
    Params,
    apply_equalisation,
    balance,
    column_magnitude,
    key_biases,
)
from tvm_ahcq.relay_passes.annotate import Layer, layers

from .recorder import Recorder


def equalise(
    mod: IRModule, params: Mapping[str, np.ndarray], recorder: Recorder, exchanges: Sequence[Exchange]
) -> dict[str, np.ndarray]:
    """Rescale channels and centre keys.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters.
    recorder : Recorder
        What passes the sites of the float model on a few images.
    exchanges : sequence of Exchange
        Places of the model where channels can be rescaled.

    Returns
    -------
    dict of str to numpy.ndarray
        Changes for :func:`tvm_ahcq.quantizers.weight.equalise.apply_equalisation`.
    """
    known = {layer.weight: layer for layer in layers(mod).values()}
    changes: dict[str, np.ndarray] = {}
    for bias, first, count in key_biases(exchanges):
        outputs = _outputs(known, params, recorder, bias.removesuffix("bias") + "weight", first, count)
        if outputs is not None:
            changes[bias] = ((outputs.max(0) + outputs.min(0)) / 2).astype(np.float32)
    # all factors come from the parameters that the sample was taken with; rescaled weights do not fit recorded inputs
    centred = apply_equalisation(params, changes, exchanges)
    for place in exchanges:
        factors = _factors(place, known, centred, recorder)
        if factors is not None:
            changes[place.name] = factors
    return changes


def _factors(place: Exchange, known: Mapping[str, Layer], params: Params, recorder: Recorder) -> np.ndarray | None:
    """Factors of one place; None where calibration has seen nothing of it."""
    if place.measured_at_producer:
        produced = _outputs(known, params, recorder, *place.rows[0], place.channels)
    else:  # what the reader sees: after the ReLU, if there is one
        produced = _rows(recorder, known[place.columns[0]].site)
    if place.counter_rows:
        read = _outputs(known, params, recorder, *place.counter_rows[0], place.channels)
    else:
        read = column_magnitude(params[name] for name in place.columns)
    if produced is None or read is None:
        return None
    factors = balance(_magnitude(produced, place.heads), _magnitude(read, place.heads), place.share)
    return np.tile(factors, place.heads)


def _magnitude(values: np.ndarray, heads: int) -> np.ndarray:
    """Largest magnitude of each channel of ``(R, C)`` values, or ``(C,)`` magnitudes; one for all `heads`."""
    largest = np.abs(values).max(0) if values.ndim == 2 else values
    return largest.reshape(heads, -1).max(0)


def _rows(recorder: Recorder, site: str) -> np.ndarray | None:
    return np.concatenate(recorder.rows[site]) if site in recorder.rows else None


def _outputs(
    known: Mapping[str, Layer],
    params: Mapping[str, np.ndarray],
    recorder: Recorder,
    weight: str,
    first: int,
    count: int,
) -> np.ndarray | None:
    """Outputs ``(R, count)`` of some rows of a linear layer on the rows of its input that were kept."""
    layer = known.get(weight)
    rows = None if layer is None else _rows(recorder, layer.site)
    if layer is None or rows is None:
        return None
    chosen = slice(first, first + count)
    bias = 0 if layer.bias is None else params[layer.bias][chosen]
    return rows @ params[weight][chosen].T + bias
