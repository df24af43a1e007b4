"""Recipes: which quantizer sits at which kind of site, at how many bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from tvm_ahcq.errors import RecipeError

from .params import BITS

SITE_KINDS = ("norm", "activation", "softmax", "projection", "linear", "operand")
"""Kinds of activation site: a linear's input after a LayerNorm or a residual (``norm``), after GELU or ReLU
(``activation``), behind an attention (``projection``), or any other (``linear``, convolutions included); attention
probabilities (``softmax``); queries, keys and values (``operand``)."""

_ALLOWED = {
    "norm": ("cag", "uniform"),
    "activation": ("hluq", "uniform"),
    "softmax": ("lnq", "agq", "uniform"),
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
"""Slips of the published code that a recipe can ask for: ACNR's energies count twice; BIG erases a channel whose mean
is exactly 0. The others are switches of the functions concerned: ``hluq_published`` (``mask="ref"``), ``lnq_published``
(``steps=2**bits``), ``agq_published`` (``extra``), ``acnr`` (``stale_log``)."""


PATCH_EMBEDDING = "patch_embed.proj"
"""Last parts of the name of the layer that reads pixels."""


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
    norm, activation, softmax, projection, linear, operand : str
        Quantizer kind at each kind of site (``SITE_KINDS``).
    search : {"error", "published"}
        How HLUQ, LNQ, AGQ, groups of CAG and the decoder's key ranges are found: by the error that they leave, or as
        published.
    activation_range : {"mse", "minmax", "average"}
        How uniform activation ranges are found: by error, from end to end, or from the ends averaged over images.
    weight_range : {"mse", "search", "minmax"}
        How weight ranges are found: the fast search, the published exhaustive one, or from end to end.
    equalise : bool
        Rescale channels and centre keys beforehand, which the float model does not notice.
    bimodal : bool
        Absorb the signs of bimodal keys into their projections (PTQ4SAM's BIG).
    conditioning : {"none", "chosen", "published"}
        ACNR: not, with a strength chosen for each layer by the error of its output, or with the published one.
    rounding : {"compensated", "nearest"}
        How weights get their codes: compensating for errors that the layer's samples show, or to the nearest.
    faults : tuple of str
        Slips of the published code to repeat (``FAULTS``); none by default.
    raised : mapping of str to int, or its items
        Sites and weights, by name, that get more bits than the rest; kept as sorted items.
    pixels : int or None
        Bits of the patch embedding's input and weight, at least: with 8, its codes are the pixels. None: it stays in
        float, as in the published methods (and in recipes that were saved without this field).
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
        """Quantizer kind ("cag", "uniform", "hluq", "lnq") at a kind of site.

        Raises
        ------
        RecipeError
            If the site kind is unknown.
        """
        _check("The site kind", site_kind, SITE_KINDS)
        return getattr(self, site_kind)

    def bits_of_site(self, site: str) -> int:
        """Code width at a site."""
        return self._bits(site, self.bits_activations)

    def bits_of_weight(self, weight: str) -> int:
        """Code width of a weight."""
        return self._bits(weight, self.bits_weights)

    def _bits(self, name: str, bits: int) -> int:
        """Of a site or weight, whose name is that of its layer and one part more."""
        found = dict(self.raised).get(name, bits)
        if self.pixels is None or not name.rpartition(".")[0].endswith(PATCH_EMBEDDING):
            return found
        return max(found, self.pixels)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self) | {"faults": list(self.faults), "raised": dict(self.raised)}

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


def _items(raised: Any) -> tuple[tuple[str, int], ...]:
    """Names and bits in order of the names; RecipeError if they are no such thing."""
    try:
        items = dict(raised)
    except (TypeError, ValueError) as error:
        raise RecipeError(f"raised is {raised!r}; expected bits by name of a site or weight.") from error
    for name, bits in items.items():
        _check(f"The bits of {name!r}", bits, BITS)
    return tuple(sorted(items.items()))


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
    """CAG after norms and attentions, HLUQ after GELU and ReLU, LNQ after softmax, uniform elsewhere, pixels as they
    are; our choices."""
    return Recipe("ahcq", bits, bits, pixels=8)


@register_recipe("ahcq-no-hluq")
def _without_hluq(bits: int) -> Recipe:
    """Recipe "ahcq" with uniform codes after GELU and ReLU."""
    return replace(_ahcq(bits), name="ahcq-no-hluq", activation="uniform")


@register_recipe("ahcq-no-cag")
def _without_cag(bits: int) -> Recipe:
    """Recipe "ahcq" with one scale a tensor."""
    return replace(_ahcq(bits), name="ahcq-no-cag", norm="uniform", projection="uniform")


@register_recipe("ahcq-no-lnq")
def _without_lnq(bits: int) -> Recipe:
    """Recipe "ahcq" with uniform codes of attention probabilities."""
    return replace(_ahcq(bits), name="ahcq-no-lnq", softmax="uniform")


@register_recipe("ahcq-no-acnr")
def _without_acnr(bits: int) -> Recipe:
    """Recipe "ahcq" with weights as they are conditioned."""
    return replace(_ahcq(bits), name="ahcq-no-acnr", conditioning="none")


@register_recipe("ahcq-no-equalise")
def _without_equalisation(bits: int) -> Recipe:
    """Recipe "ahcq" with channels as they are."""
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
    """Uniform codes everywhere, from the least to the greatest value, rounded to the nearest: the plainest baseline."""
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
