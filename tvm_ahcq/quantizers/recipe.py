"""Recipes: which quantizer sits at which kind of site, at how many bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import RecipeError
from .params import BITS

SITE_KINDS = ("norm", "activation", "softmax", "linear", "operand")
"""Kinds of activation site: a linear's input after a LayerNorm or a residual (``norm``), after GELU or ReLU
(``activation``), or any other (``linear``, convolutions included); attention probabilities (``softmax``); queries, keys
and values (``operand``)."""

_ALLOWED = {
    "norm": ("cag", "uniform"),
    "activation": ("hluq", "uniform"),
    "softmax": ("lnq",),
    "linear": ("uniform", "cag"),
    "operand": ("uniform",),
}


@dataclass(frozen=True)
class Recipe:
    """The choices that turn a float model into a quantized one.

    Attributes
    ----------
    name : str
        Under which it is registered.
    bits_weights, bits_activations : int
        Code widths: 4, 5, 6 or 8.
    groups : int
        Channel groups of a CAG quantizer, at most.
    norm, activation, softmax, linear, operand : str
        Quantizer kind at each kind of site (``SITE_KINDS``).
    activation_range : {"mse", "minmax"}
        How uniform activation ranges are found.
    weight_range : {"mse", "search"}
        How weight ranges are found: the fast search, or the published exhaustive one.
    """

    name: str
    bits_weights: int
    bits_activations: int
    groups: int = 4
    norm: str = "cag"
    activation: str = "hluq"
    softmax: str = "lnq"
    linear: str = "uniform"
    operand: str = "uniform"
    activation_range: str = "mse"
    weight_range: str = "mse"

    def __post_init__(self) -> None:
        for field in ("bits_weights", "bits_activations"):
            _check(field, getattr(self, field), BITS)
        if isinstance(self.groups, bool) or not isinstance(self.groups, int) or not 1 <= self.groups <= 32:
            raise RecipeError(f"groups is {self.groups!r}; expected a whole number from 1 to 32.")
        for kind, allowed in _ALLOWED.items():
            _check(f"The quantizer at '{kind}' sites", getattr(self, kind), allowed)
        _check("activation_range", self.activation_range, ("mse", "minmax"))
        _check("weight_range", self.weight_range, ("mse", "search"))

    def quantizer_for(self, site_kind: str) -> str:
        """Quantizer kind ("cag", "uniform", "hluq", "lnq") at a kind of site.

        Raises
        ------
        RecipeError
            If the site kind is unknown.
        """
        _check("The site kind", site_kind, SITE_KINDS)
        return getattr(self, site_kind)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Recipe:
        """Inverse of :meth:`to_dict`; RecipeError for unknown or missing fields."""
        try:
            return cls(**values)
        except TypeError as error:
            raise RecipeError(f"Recipe fields {sorted(values)} do not fit: {error}") from error


def _check(what: str, given: Any, allowed: tuple) -> None:
    if type(given) is not type(allowed[0]) or given not in allowed:
        raise RecipeError(f"{what} is {given!r}; expected one of {', '.join(map(str, allowed))}.")


_RECIPES: dict[str, Callable[[int], Recipe]] = {}


def register_recipe(name: str) -> Callable[[Callable[[int], Recipe]], Callable[[int], Recipe]]:
    """Decorator: make a function of the bits known as the recipe `name`."""

    def add(build: Callable[[int], Recipe]) -> Callable[[int], Recipe]:
        _RECIPES[name] = build
        return build

    return add


def recipe_names() -> tuple[str, ...]:
    """Registered recipes, sorted."""
    return tuple(sorted(_RECIPES))


def recipe(name: str = "ahcq", bits: int = 4) -> Recipe:
    """The recipe called `name`, with weights and activations of `bits` bits.

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
    """CAG after norms, HLUQ after GELU and ReLU, LNQ after softmax, uniform elsewhere (QUANTIZERS 2.1, corrected)."""
    return Recipe("ahcq", bits, bits)
