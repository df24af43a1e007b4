"""The registry of model families."""

from __future__ import annotations

from importlib import import_module

from tvm_ahcq.errors import UnsupportedModelError

from .description import ModelFamily, ModelSpec, Variant
from .evaluation import Prompting, Timing
from .shapes import EncoderSizes

_HOMES = {"sam": "tvm_ahcq.models.sam", "sam2": "tvm_ahcq.models.sam2"}
"""Packages of the families of this package: ``variants`` imports nothing heavy; ``family``, imported on first use,
registers the family."""

_FAMILIES: dict[str, ModelFamily] = {}


def register_family(family: ModelFamily) -> ModelFamily:
    """Make a family known under its name; return it."""
    _FAMILIES[family.name] = family
    return family


def find_family(name: str) -> ModelFamily:
    """Return a family by name.

    Raises
    ------
    UnsupportedModelError
        If there is none.
    """
    if name not in _FAMILIES and name in _HOMES:
        import_module(f"{_HOMES[name]}.family")
    if name not in _FAMILIES:
        raise UnsupportedModelError(f"unknown model family {name!r}; known are {', '.join(family_names())}")
    return _FAMILIES[name]


def family_names() -> tuple[str, ...]:
    """Return the names of all families."""
    return tuple(dict.fromkeys([*_HOMES, *_FAMILIES]))


def families() -> tuple[ModelFamily, ...]:
    """Return all families."""
    return tuple(map(find_family, family_names()))


def prompting_of(spec: ModelSpec) -> Prompting:
    """Return how a model is prompted; UnsupportedModelError if its description does not say."""
    family = find_family(spec.family)
    if family.prompting is None:
        raise UnsupportedModelError(f"{family.title} is not a promptable model; its description has no `prompting`")
    return family.prompting


def timing_of(spec: ModelSpec) -> Timing:
    """Return the calls of a model to time; UnsupportedModelError if its description has none."""
    family = find_family(spec.family)
    if family.timing is None:
        raise UnsupportedModelError(f"{family.title} cannot be timed; its description has no `timing`")
    return family.timing


def variants() -> tuple[Variant, ...]:
    """Return every model type of every family; imports nothing heavy."""
    found: list[Variant] = []
    for name in family_names():
        found += _FAMILIES[name].variants if name in _FAMILIES else import_module(f"{_HOMES[name]}.variants").VARIANTS
    return tuple(found)


def model_names() -> tuple[str, ...]:
    """Return the names of every model type of every family."""
    return tuple(variant.name for variant in variants())


def encoders() -> dict[str, EncoderSizes]:
    """Return the sizes of all image encoders that tuning knows without a bundle, by model type."""
    return {each.name: each.encoder for each in variants() if each.encoder is not None}


def find_model(name: str) -> tuple[ModelFamily, Variant]:
    """Return the family and the variant of a model type.

    Raises
    ------
    UnsupportedModelError
        If no family has it.
    """
    for family in families():
        for variant in family.variants:
            if variant.name == name:
                return family, variant
    raise UnsupportedModelError(f"unknown model type {name!r}; expected one of {', '.join(model_names())}")


def embedded_models() -> tuple[str, ...]:
    """Return the model types whose weights are part of the package."""
    return tuple(variant.name for variant in variants() if variant.embedded)


def embedded_model() -> str:
    """Return the first model type whose weights are part of the package, the default of commands."""
    return embedded_models()[0]
