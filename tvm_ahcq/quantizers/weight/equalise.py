"""Function-preserving rescaling of channels: which parameters change together, and by how much.

A channel that a LayerNorm or a linear layer produces and that linear layers alone read can be divided by any factor if
the readers' columns are multiplied by it. Queries and keys exchange factors with each other, with the relative
positions on the side of the keys. A constant added to all keys of a head shifts all logits of a query by the same
number, which softmax ignores. See docs/quantizers.md#equalisation; :mod:`tvm_ahcq.calibrate.equalise` runs it on a
model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from tvm_ahcq.errors import QuantTableError

Params = dict[str, np.ndarray]

SIGNS = "signs"
"""Last part of the name of a change of the signs of queries and keys, which precedes the change ``qk``."""


@dataclass(frozen=True)
class Exchange:
    """Channels whose scale can be exchanged between the parameters that produce them and those that read them.

    Attributes
    ----------
    name : str
        Of the place: the module that produces the channels, or the attention and ``qk`` or ``v``.
    rows : tuple of (str, int)
        Parameters that produce the channels, and their first row (output) that does; divided by the factors.
    columns : tuple of str
        Weights whose columns read the channels; multiplied by the factors.
    counter_rows : tuple of (str, int)
        Rows that are multiplied instead: the keys that meet these queries.
    counter_tables : tuple of str
        Relative positions ``(.., d)`` common to all heads; multiplied, so that the heads' factors must agree.
    heads : int
        Number of heads that share the factors; 1 where each channel has its own. The two halves of a head that a rotary
        encoding turns are two heads here.
    channels : int
        Number of channels.
    share : float
        Part of the difference between channels that goes to the readers (:func:`balance`).
    rotary : bool
        True if queries and keys turn with their position; a constant part of the keys then matters.
    measured_at_producer : bool
        True to measure the channels at the outputs of the rows that produce them, False at the input of the layer that
        reads them (behind a ReLU, if there is one).
    """

    name: str
    rows: tuple[tuple[str, int], ...]
    columns: tuple[str, ...]
    channels: int
    counter_rows: tuple[tuple[str, int], ...] = ()
    counter_tables: tuple[str, ...] = ()
    heads: int = 1
    share: float = 0.5
    rotary: bool = False
    measured_at_producer: bool = False


def rescale(params: Params, place: Exchange, factors: np.ndarray) -> None:
    """Divide the channels of an exchange by ``(channels,)`` float64 `factors`, in place."""
    factors = np.asarray(factors, np.float64)
    # a factor of 0 (the published fault of BIG) erases a channel on both sides
    inverse = np.divide(1, factors, out=np.zeros_like(factors), where=factors != 0)
    if place.heads > 1:
        a_head = factors.reshape(place.heads, -1)
        if not np.allclose(a_head, a_head[0]):
            raise ValueError(
                f"{place.name}: heads share relative positions or turn together, so their factors must agree."
            )
    divided, multiplied = ((row, inverse) for row in place.rows), ((row, factors) for row in place.counter_rows)
    for (name, first), gain in (*divided, *multiplied):
        changed = params[name].astype(np.float64)
        shape = (-1,) + (1,) * (changed.ndim - 1)
        changed[first : first + place.channels] *= gain.reshape(shape)
        params[name] = changed.astype(np.float32)
    for name in place.columns:
        params[name] = (params[name].astype(np.float64) * factors).astype(np.float32)
    for name in place.counter_tables:
        head_factors = factors[: params[name].shape[-1]]
        params[name] = (params[name].astype(np.float64) * head_factors).astype(np.float32)


def key_biases(exchanges: Iterable[Exchange]) -> list[tuple[str, int, int]]:
    """Return the biases that are added to keys alone: (parameter, first row, rows). Softmax does not see them."""
    keys = [(*place.counter_rows[1], place.channels) for place in exchanges if place.counter_rows and not place.rotary]
    return [(name, first, count) for name, first, count in keys]


def apply_equalisation(
    params: Mapping[str, np.ndarray], changes: Mapping[str, np.ndarray], exchanges: Iterable[Exchange]
) -> Params:
    """Parameters that compute the same function after `changes`.

    Parameters
    ----------
    params : mapping of str to numpy.ndarray
        Parameters of the model; not modified.
    changes : mapping of str to numpy.ndarray
        In order: factors of an exchange by its name, ``(channels,)``, signs of queries and keys by the name with
        ``SIGNS`` in place of ``qk``; or by a key bias's name what is subtracted from it, ``(rows,)``.
    exchanges : iterable of Exchange
        Places of the model where channels can be rescaled (:attr:`tvm_ahcq.models.description.ModelFamily.exchanges`).

    Returns
    -------
    dict of str to numpy.ndarray
        All parameters; unchanged ones are the same arrays.
    """
    result, places = dict(params), {place.name: place for place in exchanges}
    biases = {name: (first, count) for name, first, count in key_biases(places.values())}
    places |= {name.removesuffix("qk") + SIGNS: place for name, place in places.items() if place.counter_rows}
    for name, values in changes.items():
        if name in biases:
            first, count = biases[name]
            result[name] = result[name].copy()
            result[name][first : first + count] -= np.asarray(values, np.float32)
        elif name in places:
            rescale(result, places[name], values)
        else:
            raise QuantTableError(f"The model has no channels {name!r} to rescale; the table belongs to another model.")
    return result


def balance(produced: np.ndarray, read: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Return factors ``produced**share / read**(1 - share)`` of geometric mean 1 (SmoothQuant, arXiv 2211.10438).

    Parameters
    ----------
    produced : numpy.ndarray
        ``(C,)`` magnitude of each channel.
    read : numpy.ndarray
        ``(C,)`` magnitude of its multiplicand: of the readers' columns, or of the keys.
    share : float
        1 makes the channels equal and moves all differences to the readers, 0 the reverse.
    """
    usable = (produced > 0) & (read > 0)
    logs = np.zeros(len(produced))
    logs[usable] = share * np.log(produced[usable]) - (1 - share) * np.log(read[usable])
    if usable.any():
        logs[usable] -= logs[usable].mean()
    return np.exp(np.clip(logs, -12, 12))


def column_magnitude(weights: Iterable[np.ndarray]) -> np.ndarray:
    """Return the greatest absolute value of each column over several weights ``(N, C)``, ``(C,)``."""
    return np.max([np.abs(weight).reshape(len(weight), weight.shape[1], -1).max((0, 2)) for weight in weights], axis=0)
