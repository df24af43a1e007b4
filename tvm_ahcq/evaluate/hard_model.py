"""A model that computes the same function as another and is much harder to quantize.

The published SAM checkpoints have channels of very different range after a LayerNorm, ill-conditioned projections and
two-sided keys. The small model of the package has none of them. Each function here recreates one by a change of the
parameters that real arithmetic undoes exactly: the layers that read a changed value invert the change. Float outputs
stay (to rounding); only quantization errors grow.

Left out, because no inverse exists that leaves the function as it is: scales on the input of a GELU (it commutes with
no scale but 1), on the residual streams (a LayerNorm reads them) and on the norms of the mask decoder (their outputs
are residuals too), and outlier tokens (a token's residual reaches the neck, whose first layer no LayerNorm precedes).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.links import AttentionLink, Links, NormLink, ReluLink, Rows
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import bindings, functions, name_parameters

Params = dict[str, np.ndarray]
"""Parameters by name, float64; the functions here change the entries in place of the old ones."""

MIN_GAIN = 1e-2
"""A norm with a gain below this fraction of its greatest one keeps its weights clear of :func:`add_blind_direction`."""


@dataclass(frozen=True)
class Hardening:
    """Strengths of the transformations of a hardened model; 0 switches one off, for a condition number 1 does.

    Attributes
    ----------
    norm_spread : float
        Standard deviation, in octaves, of the channel scales after encoder norms (:func:`spread_norm_channels`).
    neck_spread : float
        The same after the first norm of the neck.
    norm_offset : float
        Standard deviation of the channel offsets after encoder norms, in gains (:func:`offset_norm_channels`).
    blind_direction : float
        Size of a weight component that the norm before it never excites, in spectral norms of the weight
        (:func:`add_blind_direction`).
    query_key_condition, value_condition : float
        Condition number of the matrix that mixes the channels of each head of queries and keys, and of values
        (:func:`mix_queries_and_keys`, :func:`mix_values`).
    encoder_attention : bool
        True if the two act on the encoder as well as on the mask decoder.
    key_offset : float
        Two-sided offset of the mask decoder's keys, in mean row norms of their projection (:func:`offset_keys`).
    value_offset : float
        Offset of the mask decoder's values, in the same unit (:func:`offset_values`).
    relu_spread : float
        Standard deviation, in octaves, of the scales of the mask decoder's hidden units (:func:`spread_relu_units`).
    """

    norm_spread: float = 0.0
    neck_spread: float = 0.0
    norm_offset: float = 0.0
    blind_direction: float = 0.0
    query_key_condition: float = 1.0
    value_condition: float = 1.0
    encoder_attention: bool = True
    key_offset: float = 0.0
    value_offset: float = 0.0
    relu_spread: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            least = 1 if name.endswith("condition") else 0
            if not np.isfinite(value) or value < least:
                raise ValueError(f"{name} is {value!r}; expected a finite number of at least {least}.")


HARD = Hardening(
    norm_spread=1.5,
    norm_offset=1.0,
    blind_direction=1.0,
    query_key_condition=4.0,
    value_condition=4.0,
    key_offset=4.0,
    value_offset=1.0,
    relu_spread=1.0,
)
"""The hardening of the accuracy study: every published difficulty, at a strength that 4 bits tolerate."""


def links_of(model: FloatModel) -> Links:
    """Return the links of a model; its graph knows the head sizes, by the scale ``1 / sqrt(head_dim)``."""
    family = model.family
    if family.links is None:
        raise UnsupportedModelError(f"{family.title} cannot be made hard to quantize; its description has no `links`")
    named = name_parameters(model.module, model.function_params)
    scales = {
        str(binding.value.attrs["name"]): float(binding.value.attrs["scale"])
        for _, func in functions(canonicalise(named))
        for binding in bindings(func)
        if is_op(binding.value, "relax.ahcq.attention")
    }
    return family.links(model.spec, model.params, {name: round(scale**-2) for name, scale in scales.items()})


def spread_norm_channels(params: Params, link: NormLink, octaves: float, rng: np.random.Generator) -> None:
    """Give the channels after a norm very different ranges.

    Gain and bias of channel c are multiplied by ``s_c = 2 ** (octaves * N(0, 1))``, column c of the layer after it
    divided by it.
    """
    weight = params[f"{link.layer}.weight"]
    scale = np.exp2(octaves * rng.normal(size=weight.shape[1]))
    params[f"{link.norm}.weight"] = params[f"{link.norm}.weight"] * scale
    params[f"{link.norm}.bias"] = params[f"{link.norm}.bias"] * scale
    params[f"{link.layer}.weight"] = weight / scale.reshape(1, -1, *(1,) * (weight.ndim - 2))


def offset_norm_channels(params: Params, link: NormLink, strength: float, rng: np.random.Generator) -> None:
    """Move the channels after a norm away from zero: bias ``b + c`` there, ``bias - W c`` in the layer after it.

    ``c`` is normal with `strength` gains as its standard deviation. Not where `link` is padded: a padded zero would
    have to move too.
    """
    if link.padded:
        raise ValueError(f"{link.layer} reads padding; offsets of {link.norm} would change what it computes.")
    gain, weight = params[f"{link.norm}.weight"], params[f"{link.layer}.weight"]
    offset = strength * np.abs(gain) * rng.normal(size=gain.shape)
    params[f"{link.norm}.bias"] = params[f"{link.norm}.bias"] + offset
    params[f"{link.layer}.bias"] = params[f"{link.layer}.bias"] - weight @ offset


def add_blind_direction(params: Params, link: NormLink, strength: float, rng: np.random.Generator) -> None:
    """Make a weight ill-conditioned along the one direction in which a LayerNorm's output is constant.

    Before gain g and bias b the channels of a LayerNorm add up to 0, so with ``u = (1/g) / |1/g|`` the output y has
    ``u . y = u . b`` always: ``W + a u^T`` with ``bias - a (u . b)`` computes the same for every a. Here a has a random
    direction and the length `strength` times the spectral norm of W. Errors of a quantized y are not blind to it.

    Not where `link` is padded (see :func:`offset_norm_channels`); a norm with gains near 0 is left as it is.
    """
    if link.padded:
        raise ValueError(f"{link.layer} reads padding; its norm is blind to no direction there.")
    gain, weight = params[f"{link.norm}.weight"], params[f"{link.layer}.weight"]
    if np.abs(gain).min() < MIN_GAIN * np.abs(gain).max():
        return
    direction = 1 / gain
    direction /= np.linalg.norm(direction)
    amount = rng.normal(size=len(weight))
    amount *= strength * np.linalg.norm(weight, 2) / np.linalg.norm(amount)
    params[f"{link.layer}.weight"] = weight + np.outer(amount, direction)
    params[f"{link.layer}.bias"] = params[f"{link.layer}.bias"] - amount * (direction @ params[f"{link.norm}.bias"])


def mix_queries_and_keys(params: Params, link: AttentionLink, condition: float, rng: np.random.Generator) -> None:
    """Replace q by ``A^T q`` and k by ``A^-1 k`` in each head, which leaves every ``q . k``.

    A is random with the given condition number, one for all heads: the tables of relative positions, whose rows r meet
    q as ``q . r``, are shared by the heads and become ``A^-1 r``.
    """
    mix = _conditioned(link.head_dim, condition, rng)
    inverse = np.linalg.inv(mix)
    _map_rows(params, link.query, mix.T)
    _map_rows(params, link.key, inverse)
    for table in link.tables:
        params[table] = params[table] @ inverse.T


def mix_values(params: Params, link: AttentionLink, condition: float, rng: np.random.Generator) -> None:
    """Replace v by ``M v`` in each head and undo it in the columns of the layer that reads the attention's result.

    M is random with the given condition number. Attention weighs tokens, so it commutes with M.
    """
    mix = _conditioned(link.head_dim, condition, rng)
    _map_rows(params, link.value, mix)
    weight = params[f"{link.out}.weight"]
    heads = weight.reshape(len(weight), -1, link.head_dim)
    params[f"{link.out}.weight"] = (heads @ np.linalg.inv(mix)).reshape(weight.shape)


def offset_keys(params: Params, link: AttentionLink, strength: float, rng: np.random.Generator) -> None:
    """Add a constant of one size and random sign to every key channel, which makes keys bimodal.

    ``q . (k + c)`` differs from ``q . k`` by a number that all keys share, to which softmax is blind. The size is
    `strength` mean row norms of the projection (about as many standard deviations of a key).
    """
    _offset_rows(params, link.key, strength, rng)


def offset_values(params: Params, link: AttentionLink, strength: float, rng: np.random.Generator) -> None:
    """Add a constant of one size and random sign to every value channel.

    Probabilities add up to 1, so the attention's result moves by the same constant c, and its reader takes back
    ``W c`` in its bias.
    """
    offset = _offset_rows(params, link.value, strength, rng)
    params[f"{link.out}.bias"] = params[f"{link.out}.bias"] - params[f"{link.out}.weight"] @ offset


def spread_relu_units(params: Params, link: ReluLink, octaves: float, rng: np.random.Generator) -> None:
    """Give the hidden units of a ReLU network very different ranges.

    ``relu(s x) = s relu(x)`` for every s > 0: unit c is multiplied by ``s_c = 2 ** (octaves * N(0, 1))`` and its column
    of the second layer divided by it.
    """
    scale = np.exp2(octaves * rng.normal(size=len(params[f"{link.first}.bias"])))
    params[f"{link.first}.weight"] = params[f"{link.first}.weight"] * scale[:, None]
    params[f"{link.first}.bias"] = params[f"{link.first}.bias"] * scale
    params[f"{link.second}.weight"] = params[f"{link.second}.weight"] / scale


def harden(model: FloatModel, hardening: Hardening, seed: int = 0) -> FloatModel:
    """Return a model with the same outputs that is harder to quantize.

    Parameters
    ----------
    model : FloatModel
        A model whose description has `links`; it is not changed.
    hardening : Hardening
        Transformations, and how strong each is.
    seed : int
        Of the random scales, signs and matrices. Each transformation draws its own, independent of the others.

    Returns
    -------
    FloatModel
        Named after `model` with ``-hard`` appended; the graph is shared. Parameters are computed in float64 and rounded
        to float32 once; those that nothing changed are the originals.
    """
    params: Params = {name: value.astype(np.float64) for name, value in model.params.items()}
    before = dict(params)
    for kind, step in enumerate(_steps(links_of(model), hardening)):
        apply, links, strength = step
        for number, link in enumerate(links):
            apply(params, link, strength, np.random.default_rng([seed, kind, number]))
    changed = {name: value.astype(np.float32) for name, value in params.items() if value is not before[name]}
    spec = replace(model.spec, name=f"{model.name}-hard")
    return replace(model, spec=spec, params={**model.params, **changed})


def _steps(links: Links, wanted: Hardening) -> Iterator[tuple]:
    """Yield (function, links to act on, strength) of every transformation, with no links where it is off."""
    norms = links.norms
    moving = [link for link in norms if not link.padded]
    decoder = [link for link in links.attentions if not link.in_encoder]
    mixed = links.attentions if wanted.encoder_attention else decoder
    # offsets of channels come before their scales, so that they grow with them
    yield offset_norm_channels, moving if wanted.norm_offset else [], wanted.norm_offset
    yield add_blind_direction, moving if wanted.blind_direction else [], wanted.blind_direction
    yield spread_norm_channels, norms if wanted.norm_spread else [], wanted.norm_spread
    yield spread_norm_channels, links.neck if wanted.neck_spread else [], wanted.neck_spread
    yield mix_queries_and_keys, mixed if wanted.query_key_condition > 1 else [], wanted.query_key_condition
    yield mix_values, mixed if wanted.value_condition > 1 else [], wanted.value_condition
    yield offset_keys, decoder if wanted.key_offset else [], wanted.key_offset
    yield offset_values, decoder if wanted.value_offset else [], wanted.value_offset
    yield spread_relu_units, links.relus if wanted.relu_spread else [], wanted.relu_spread


def _conditioned(size: int, condition: float, rng: np.random.Generator) -> np.ndarray:
    """A random square matrix of determinant ±1 whose singular values fall geometrically over the condition number."""
    left, right = (np.linalg.qr(rng.normal(size=(size, size)))[0] for _ in range(2))
    return (left * np.geomspace(np.sqrt(condition), 1 / np.sqrt(condition), size)) @ right


def _map_rows(params: Params, part: Rows, matrix: np.ndarray) -> None:
    """Apply `matrix` ``(d, d)`` to the output channels of each head."""
    for name in (f"{part.layer}.weight", f"{part.layer}.bias"):
        new = params[name].copy()
        rows = new[part.rows]
        heads = rows.reshape(-1, len(matrix), rows[0].size)
        new[part.rows] = (matrix @ heads).reshape(rows.shape)
        params[name] = new


def _offset_rows(params: Params, part: Rows, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Add an offset of random signs to the output channels; return it."""
    weight, bias = params[f"{part.layer}.weight"][part.rows], params[f"{part.layer}.bias"].copy()
    offset = strength * np.linalg.norm(weight, axis=1).mean() * rng.choice([-1.0, 1.0], len(weight))
    bias[part.rows] += offset
    params[f"{part.layer}.bias"] = bias
    return offset
