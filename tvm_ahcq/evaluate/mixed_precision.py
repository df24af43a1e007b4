"""Mixed precision: more bits for the most sensitive layers, until the masks of calibration pictures stay close."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tvm_ahcq.api import QuantizedModel, quantize
from tvm_ahcq.errors import CalibrationError, RecipeError
from tvm_ahcq.evaluate.sensitivity.measure import measure
from tvm_ahcq.evaluate.sensitivity.probes import Probe
from tvm_ahcq.evaluate.sensitivity.stable_prompts import stable_probes
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.progress import Progress, silent
from tvm_ahcq.quantizers.core.recipe import Recipe
from tvm_ahcq.quantizers.core.table import QuantTable

STEPS = (6, 8)
"""Code widths to raise to, in order."""

PROBES = 4
"""Pictures whose masks are compared."""


@dataclass(frozen=True, eq=False)
class MixedModel:
    """Result of :func:`raise_bits`.

    Attributes
    ----------
    model : QuantizedModel
        The first that stays within the bound.
    raised : dict of str to int
        Bits of the sites and weights that got more than the rest; also in ``model.table.recipe.raised``.
    drops : tuple of float
        1 minus the mean IoU with the float model's masks: at first, and after each step.
    """

    model: QuantizedModel
    raised: dict[str, int]
    drops: tuple[float, ...]


def raise_bits(
    model: FloatModel,
    images: Sequence[np.ndarray],
    recipe: Recipe,
    max_drop: float,
    progress: Progress = silent,
) -> MixedModel:
    """Quantize with as few raised sites and weights as a bound on the masks allows.

    Each layer's effect on the masks is measured once, with that layer alone quantized. Then the layers that hurt most
    get 6 bits, twice as many of them at each step, and after all have them, 8; each step quantizes and measures anew.

    Parameters
    ----------
    model : FloatModel
        Float.
    images : sequence of numpy.ndarray
        Calibration pictures, ``(H, W, 3)`` uint8. The masks of the first few are compared, on clicks whose masks the
        float model is sure of, and boxes around these.
    recipe : Recipe
        Recipe to start from.
    max_drop : float
        Bound on 1 minus the mean IoU with the float model's masks, in (0, 1).
    progress : callable
        Told of every step.

    Raises
    ------
    RecipeError
        If the bound is not between 0 and 1.
    CalibrationError
        If even 8 bits everywhere do not meet it.
    """
    if not 0 < max_drop < 1:
        raise RecipeError(f"max_drop is {max_drop!r}; expected a number between 0 and 1, such as 0.01 for 1 %.")
    probes = stable_probes(model, images[:PROBES], progress=progress)
    qmodel = quantize(model, images, recipe, progress=progress)
    drops = [_drop(qmodel, probes, progress)]
    if drops[0] <= max_drop:
        return MixedModel(qmodel, dict(recipe.raised), tuple(drops))
    order = _order(qmodel, probes, progress)
    start = _bits(qmodel.table)
    for bits in (step for step in STEPS if step > min(recipe.bits_activations, recipe.bits_weights)):
        base = dict(qmodel.table.recipe.raised)
        for count in _counts(len(order)):
            raised = base | {name: bits for names in order[:count] for name in names if start[name] < bits}
            qmodel = quantize(model, images, replace(recipe, raised=tuple(raised.items())), progress=progress)
            drops.append(_drop(qmodel, probes, progress))
            if drops[-1] <= max_drop:
                return MixedModel(qmodel, raised, tuple(drops))
    raise CalibrationError(
        f"With {STEPS[-1]} bits everywhere the masks still change by {drops[-1]:.4f}, more than {max_drop:g}; "
        "allow a larger drop, or give more calibration pictures."
    )


def _bits(table: QuantTable) -> dict[str, int]:
    """Return the code width of every site and weight."""
    sites = {name: params.bits for name, params in table.sites.items()}
    return sites | {name: ranges.bits for name, ranges in table.weights.items()}


def _counts(total: int) -> Iterator[int]:
    """Return the numbers of layers to raise in turn: an eighth of them, twice as many each time, and all."""
    count = max(1, total // 8)
    while count < total:
        yield count
        count *= 2
    yield total


def _drop(qmodel: QuantizedModel, probes: Sequence[Probe], progress: Progress) -> float:
    """Return 1 minus the mean IoU of the quantized model's masks with the float model's."""
    return measure(qmodel, probes, "none", progress).total.iou_loss


def _order(qmodel: QuantizedModel, probes: Sequence[Probe], progress: Progress) -> list[list[str]]:
    """Return sites and weight of each layer, the layer that hurts most first."""
    sensitivity = measure(qmodel, probes, "layers", progress)
    units = [effect.unit for effect in sensitivity.worst()]
    return [[*unit.sites, *(f"{layer}.weight" for layer in unit.layers)] for unit in units]
