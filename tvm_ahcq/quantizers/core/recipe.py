"""Recipes: quantizer kinds by kind of site, bits, and calibration methods."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from tvm_ahcq.errors import RecipeError

from .params import BITS

SITE_KINDS = ("norm", "activation", "softmax", "projection", "linear", "operand")
"""Kinds of activation site: input of a linear layer after a LayerNorm or a residual (``norm``), after GELU or ReLU
(``activation``), after an attention (``projection``), or any other (``linear``, convolutions included); attention
probabilities (``softmax``); queries, keys and values (``operand``). See docs/quantizers.md#site-placement."""

_ALLOWED = {
    "norm": ("cag", "uniform"),
    "activation": ("hluq", "uniform"),
    "softmax": ("row_relative", "lnq", "agq", "uniform"),
    "projection": ("cag", "uniform"),
    "linear": ("uniform",),
    "operand": ("uniform",),
}

_METHODS = {
    "search": ("error", "published"),
    "activation_range": ("mse", "minmax", "average"),
    "weight_range": ("mse", "search", "minmax"),
    "conditioning": ("none", "chosen", "published"),
    "rounding": ("compensated", "nearest"),
}

FAULTS = ("doubled_energy", "zero_sign")
"""Faults of the published code that a recipe can replicate: ACNR's energies count twice; BIG erases channels whose mean
is exactly 0. The others are switches of functions; docs/quantizers.md#published-method lists them."""


@dataclass(frozen=True)
class Recipe:
    """The choices that turn a float model into a quantized one.

    Attributes
    ----------
    name : str
        Name of the recipe in the registry.
    bits_weights, bits_activations : int
        Code widths: 4, 5, 6 or 8.
    groups : int
        Channel groups of a CAG quantizer, at most.
    norm, activation, softmax, projection, linear, operand : str
        Quantizer kind at each kind of site (``SITE_KINDS``).
    search : {"error", "published"}
        Search for HLUQ, LNQ, AGQ, groups of CAG and the decoder's key ranges: least error, or as published.
    activation_range : {"mse", "minmax", "average"}
        Uniform activation ranges: least error, full range, or extremes averaged over images.
    weight_range : {"mse", "search", "minmax"}
        Weight ranges: fast search, published exhaustive search, or full range.
    equalise : bool
        Rescale channels and centre keys before calibration; the float function does not change.
    bimodal : bool
        Fold the signs of bimodal keys into their projections (PTQ4SAM's BIG).
    conditioning : {"none", "chosen", "published"}
        ACNR: off, with a strength chosen for each layer by the error of its output, or with the published strength.
    rounding : {"compensated", "nearest"}
        Weight codes: error-compensated on the layer's samples, or nearest.
    faults : tuple of str
        Faults of the published code to replicate (``FAULTS``); none by default.
    raised : mapping of str to int, or its items
        Bits of single sites and weights by name, in place of the recipe's; stored as sorted items.
    pixels : int or None
        Bits of the input and the weight of layers that read pixels, at least: with 8, codes are the pixels. None: they
        stay in float, as in the published methods (and in recipes that were saved without this field).
    """

    name: str
    bits_weights: int
    bits_activations: int
    groups: int = 4
    norm: str = "cag"
    activation: str = "hluq"
    softmax: str = "lnq"
    projection: str = "cag"
    linear: str = "uniform"
    operand: str = "uniform"
    search: str = "error"
    activation_range: str = "mse"
    weight_range: str = "mse"
    equalise: bool = True
    bimodal: bool = False
    conditioning: str = "chosen"
    rounding: str = "compensated"
    faults: tuple[str, ...] = ()
    raised: tuple[tuple[str, int], ...] = ()
    pixels: int | None = None

    def __post_init__(self) -> None:
        for field in ("bits_weights", "bits_activations"):
            _check(field, getattr(self, field), BITS)
        if self.pixels is not None:
            _check("pixels", self.pixels, BITS)
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or not 1 <= self.groups <= 32:
            raise RecipeError(f"groups is {self.groups!r}; expected a whole number from 1 to 32.")
        for kind, allowed in _ALLOWED.items():
            _check(f"The quantizer at '{kind}' sites", getattr(self, kind), allowed)
        for field, methods in _METHODS.items():
            _check(field, getattr(self, field), methods)
        for field in ("equalise", "bimodal"):
            _check(field, getattr(self, field), (True, False))
        object.__setattr__(self, "faults", tuple(self.faults))
        for fault in self.faults:
            _check("A fault", fault, FAULTS)
        object.__setattr__(self, "raised", _items(self.raised))

    def quantizer_for(self, site_kind: str) -> str:
        """Return the quantizer kind ("cag", "uniform", "hluq", "row_relative", "lnq", "agq") at a kind of site.

        Raises
        ------
        RecipeError
            If the site kind is unknown.
        """
        _check("The site kind", site_kind, SITE_KINDS)
        return getattr(self, site_kind)

    def bits_of_site(self, site: str, pixels: bool = False) -> int:
        """Return the code width at a site; `pixels` is True for the input of a layer that reads pixels."""
        return self._bits(site, self.bits_activations, pixels)

    def bits_of_weight(self, weight: str, pixels: bool = False) -> int:
        """Return the code width of a weight; `pixels` is True for that of a layer that reads pixels."""
        return self._bits(weight, self.bits_weights, pixels)

    def _bits(self, name: str, bits: int, pixels: bool) -> int:
        raised = dict(self.raised).get(name, bits)
        return max(raised, self.pixels) if pixels and self.pixels is not None else raised

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self) | {"faults": list(self.faults), "raised": dict(self.raised)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Return the recipe of :meth:`to_dict`'s values; RecipeError for unknown or missing fields."""
        try:
            return cls(**values)
        except TypeError as error:
            raise RecipeError(f"Recipe fields {sorted(values)} do not fit: {error}") from error


def _check(what: str, given: Any, allowed: tuple) -> None:
    if type(given) is not type(allowed[0]) or given not in allowed:
        raise RecipeError(f"{what} is {given!r}; expected one of {', '.join(map(str, allowed))}.")


def _items(raised: Any) -> tuple[tuple[str, int], ...]:
    """Return names and bits, sorted by name; RecipeError for anything else."""
    try:
        items = dict(raised)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"raised is {raised!r}; expected bits by name of a site or weight.") from error
    for name, bits in items.items():
        _check(f"The bits of {name!r}", bits, BITS)
    return tuple(sorted(items.items()))


_RECIPES: dict[str, Callable[[int], Recipe]] = {}


def register_recipe(name: str) -> Callable[[Callable[[int], Recipe]], Callable[[int], Recipe]]:
    """Return a decorator that registers a function of the bits as the recipe `name`."""

    def add(build: Callable[[int], Recipe]) -> Callable[[int], Recipe]:
        _RECIPES[name] = build
        return build

    return add


def recipe_names() -> tuple[str, ...]:
    """Return the names of the registered recipes, sorted."""
    return tuple(sorted(_RECIPES))


def recipe(name: str = "ahcq", bits: int = 4) -> Recipe:
    """Return the recipe `name` with weights and activations of `bits` bits.

    Raises
    ------
    RecipeError
        If the name is unknown or bits is not 4, 5, 6 or 8.
    """
    if name not in _RECIPES:
        raise RecipeError(f"Recipe {name!r} is unknown; known recipes are {', '.join(recipe_names())}.")
    _check("bits", bits, BITS)
    return _RECIPES[name](bits)


@register_recipe("ahcq")
def _ahcq(bits: int) -> Recipe:
    """CAG after norms and attentions, HLUQ after GELU and ReLU, row-relative codes of softmax, uniform elsewhere.

    Pixels have 8 bits.
    """
    return Recipe("ahcq", bits, bits, softmax="row_relative", pixels=8)


@register_recipe("ahcq-no-hluq")
def _without_hluq(bits: int) -> Recipe:
    """Recipe "ahcq" with uniform codes after GELU and ReLU."""
    return replace(_ahcq(bits), name="ahcq-no-hluq", activation="uniform")


@register_recipe("ahcq-no-cag")
def _without_cag(bits: int) -> Recipe:
    """Recipe "ahcq" with one scale for each tensor."""
    return replace(_ahcq(bits), name="ahcq-no-cag", norm="uniform", projection="uniform")


@register_recipe("ahcq-lnq")
def _with_lnq(bits: int) -> Recipe:
    """Recipe "ahcq" with the published quantizer of attention probabilities, LNQ."""
    return replace(_ahcq(bits), name="ahcq-lnq", softmax="lnq")


@register_recipe("ahcq-no-lnq")
def _without_lnq(bits: int) -> Recipe:
    """Recipe "ahcq" with uniform codes of attention probabilities."""
    return replace(_ahcq(bits), name="ahcq-no-lnq", softmax="uniform")


@register_recipe("ahcq-no-acnr")
def _without_acnr(bits: int) -> Recipe:
    """Recipe "ahcq" without conditioning of weights."""
    return replace(_ahcq(bits), name="ahcq-no-acnr", conditioning="none")


@register_recipe("ahcq-no-equalise")
def _without_equalisation(bits: int) -> Recipe:
    """Recipe "ahcq" without equalisation."""
    return replace(_ahcq(bits), name="ahcq-no-equalise", equalise=False)


@register_recipe("paper")
def _paper(bits: int) -> Recipe:
    """The published choices, faults repaired (docs/quantizers.md#published-method); learning is `effort="high"`."""
    return Recipe(
        "paper",
        bits,
        bits,
        projection="uniform",
        search="published",
        activation_range="average",
        weight_range="search",
        equalise=False,
        bimodal=True,
        conditioning="published",
        rounding="nearest",
    )


@register_recipe("ptq4sam")
def _ptq4sam(bits: int) -> Recipe:
    """PTQ4SAM (arXiv 2405.03144): BIG and AGQ, uniform codes elsewhere."""
    return replace(
        _paper(bits), name="ptq4sam", norm="uniform", activation="uniform", softmax="agq", conditioning="none"
    )


@register_recipe("minmax")
def _minmax(bits: int) -> Recipe:
    """Uniform codes of the full range everywhere, weights rounded to nearest: the simplest baseline."""
    return Recipe(
        "minmax",
        bits,
        bits,
        norm="uniform",
        activation="uniform",
        softmax="uniform",
        projection="uniform",
        linear="uniform",
        operand="uniform",
        activation_range="minmax",
        weight_range="minmax",
        equalise=False,
        conditioning="none",
        rounding="nearest",
    )
