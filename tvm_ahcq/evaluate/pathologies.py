"""Makes a SAM hard to quantize without changing what it computes.

A small model trained for a few hours is kind to quantizers; the official ones are not (QUANTIZERS 3): their LayerNorms
give some channels a hundred times the range of others, keys of the decoder are bimodal, weights are ill-conditioned. Each
function here puts one of these into a model's parameters by a transformation that the float model does not notice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..frontend.sam import SamModel
from ..quantizers.equalise import Params, exchanges, key_biases, rescale


@dataclass(frozen=True)
class Pathologies:
    """How strong each pathology is; 0 leaves it out.

    Attributes
    ----------
    norm_spread : float
        Standard deviation of the natural logarithm of channel scales behind the encoder's LayerNorms.
    norm_outliers : float
        Factor on 2 % of those channels.
    attention_spread : float
        The same as `norm_spread` for query against key channels and for value channels.
    relu_spread : float
        The same for the hidden channels of the decoder's MLPs.
    key_offset : float
        Bias that is added to keys, with random signs, in units of the keys' weight norm: bimodal keys.
    mixing : float
        Natural logarithm of the condition number of the matrices that mix the channels of each head, in queries against
        keys and in values against the projection.
    """

    norm_spread: float = 1.0
    norm_outliers: float = 8.0
    attention_spread: float = 0.7
    relu_spread: float = 0.7
    key_offset: float = 1.0
    mixing: float = 1.5


def harden(model: SamModel, strength: Pathologies | None = None, seed: int = 0) -> SamModel:
    """The same function with parameters that are harder to quantize.

    Parameters
    ----------
    model : SamModel
        From :func:`tvm_ahcq.from_sam`.
    strength : Pathologies, optional
        Which, and how strong.
    seed : int
        Of everything random.
    """
    strength, rng = strength or Pathologies(), np.random.default_rng(seed)
    params: Params = dict(model.params)
    mix_heads(params, strength.mixing, rng)
    spread_channels(params, strength, rng)
    offset_keys(params, strength.key_offset, rng)
    return replace(model, params=params)


def spread_channels(params: Params, strength: Pathologies, rng: np.random.Generator) -> None:
    """Random scales for channels behind norms, of attentions, and behind ReLUs, undone by whoever reads them."""
    for place in exchanges(params):
        kind = place.name.rpartition(".")[2]
        own = place.channels // place.heads
        if kind.startswith("norm"):
            factors = np.exp(strength.norm_spread * rng.normal(size=own))
            if strength.norm_outliers:
                factors[rng.random(own) < 0.02] /= strength.norm_outliers
        else:
            spread = strength.relu_spread if kind == "lin1" else strength.attention_spread
            factors = np.exp(spread * rng.normal(size=own))
        rescale(params, place, np.tile(factors, place.heads))


def offset_keys(params: Params, offset: float, rng: np.random.Generator) -> None:
    """A bias on keys with random signs: two modes in their distribution, and no change of any softmax."""
    for name, first, count in key_biases(params):
        weight = params[name.removesuffix("bias") + "weight"][first : first + count]
        typical = float(np.linalg.norm(weight, axis=1).mean())
        bias = params[name].copy()
        bias[first : first + count] += (offset * typical * rng.choice([-1, 1], count)).astype(np.float32)
        params[name] = bias


def mix_heads(params: Params, log_condition: float, rng: np.random.Generator) -> None:
    """Mix the channels of each head by ill-conditioned matrices: queries against keys, values against the projection."""
    if not log_condition:
        return
    for place in exchanges(params):
        if not place.name.endswith((".qk", ".v")):
            continue
        heads = place.heads if place.heads > 1 else _heads(params, place.name)
        size = place.channels // heads
        mixers = [_mixer(size, log_condition, rng) for _ in range(1 if place.counter_tables else heads)]
        mixers = mixers * (heads // len(mixers))
        for head, matrix in enumerate(mixers):
            inverse = np.linalg.inv(matrix)
            for rows, factor in ((place.rows, inverse), (place.counter_rows, matrix.T)):
                for name, first in rows:
                    _multiply_rows(params, name, first + head * size, factor)
            for name in place.columns:
                columns = slice(head * size, (head + 1) * size)
                changed = params[name].astype(np.float64)
                changed[:, columns] = changed[:, columns] @ matrix
                params[name] = changed.astype(np.float32)
        for name in place.counter_tables:
            params[name] = (params[name].astype(np.float64) @ mixers[0]).astype(np.float32)


def _heads(params: Mapping[str, np.ndarray], name: str) -> int:
    """Heads of an attention: the encoder's from its relative positions, 8 in SAM's decoder."""
    table = params.get(name.rpartition(".")[0] + ".rel_pos_h")
    if table is None:
        return 8
    return len(params[name.rpartition(".")[0] + ".proj.weight"]) // table.shape[-1]


def _mixer(size: int, log_condition: float, rng: np.random.Generator) -> np.ndarray:
    """A random ``(size, size)`` matrix with that condition number and determinant 1."""
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2))
    return (left * np.exp(np.linspace(-0.5, 0.5, size) * log_condition)) @ right


def _multiply_rows(params: Params, name: str, first: int, matrix: np.ndarray) -> None:
    changed = params[name].astype(np.float64)
    rows = slice(first, first + len(matrix))
    changed[rows] = matrix @ changed[rows]
    params[name] = changed.astype(np.float32)
