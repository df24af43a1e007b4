"""The registry of model families."""

from __future__ import annotations

from importlib import import_module

from tvm_ahcq.errors import UnsupportedModelError

from .description import ModelFamily, Variant

_HOMES = {"sam": "tvm_ahcq.models.sam.family"}
"""Modules of the families of this package; imported on first use, when they register themselves."""

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
        import_module(_HOMES[name])
    if name not in _FAMILIES:
        raise UnsupportedModelError(f"unknown model family {name!r}; known are {', '.join(family_names())}")
    return _FAMILIES[name]


def family_names() -> tuple[str, ...]:
    """Return the names of all families."""
    return tuple(dict.fromkeys([*_HOMES, *_FAMILIES]))


def model_names() -> tuple[str, ...]:
    """Return every model type of every family."""
    return tuple(variant.name for name in family_names() for variant in find_family(name).variants)


def find_model(name: str) -> tuple[ModelFamily, Variant]:
    """Return the family and the variant of a model type.

    Raises
    ------
    UnsupportedModelError
        If no family has it.
    """
    for family in map(find_family, family_names()):
        for variant in family.variants:
            if variant.name == name:
                return family, variant
    raise UnsupportedModelError(f"unknown model type {name!r}; expected one of {', '.join(model_names())}")


def embedded_model() -> str:
    """Return the model type whose weights are part of the package."""
    return next(variant.name for name in family_names() for variant in find_family(name).variants if variant.embedded)
