"""Reads checkpoints (``.pth``, ``.safetensors``) and explains what is wrong with one that does not fit."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from tvm_ahcq.errors import CheckpointError

from .description import ModelFamily
from .registry import families

_LISTED = 3
"""How many names of each kind of mismatch a message lists."""


Shapes = dict[str, tuple[int, ...]]
"""Names and shapes of a state dict."""


def checkpoint_path(
    family: ModelFamily, model_type: str, checkpoint: str | os.PathLike[str] | None
) -> str | os.PathLike[str]:
    """Return the checkpoint that was given, or the one that the package brings along.

    Raises
    ------
    UnsupportedModelError
        For a model type that the family does not have.
    CheckpointError
        When none was given, and the package has none.
    """
    variant = family.variant(model_type)
    if checkpoint is not None:
        return checkpoint
    if variant.weights is not None:
        return variant.weights
    embedded = ", ".join(each.name for each in family.variants if each.embedded)
    raise CheckpointError(
        f"{model_type} needs a checkpoint; pass checkpoint=PATH, for instance of the file from {variant.checkpoint}"
        + (f" (only {embedded} comes with weights)" if embedded else "")
    )


def load_checkpoint(
    path: str | os.PathLike[str], family: ModelFamily, model_type: str, build: Callable[[str], nn.Module]
) -> dict[str, torch.Tensor]:
    """Read a state dict and check it against a model type.

    Parameters
    ----------
    path : path
        A file written by ``torch.save`` with a state dict, or with one under the key ``"model"``; or ``.safetensors``.
    family : ModelFamily
        Its names of a file's tensors are taken, and its other model types are tried where this one does not fit.
    model_type : str
        One of the family's variants.
    build : callable
        ``build(model_type)``: the torch module, on the device "meta".

    Returns
    -------
    dict of str to torch.Tensor
        float32; memory-mapped where the file format allows.

    Raises
    ------
    CheckpointError
        When the file is missing, a directory, truncated or not a checkpoint, holds other objects than tensors, fits
        another architecture, or holds weights that are not finite.
    """
    path = Path(path)
    state = _read(path)
    if isinstance(state, dict) and isinstance(state.get("model"), dict):
        state = state["model"]
    if not isinstance(state, dict) or not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(
            f"{path}: expected a state dict (names to tensors), or one under the key 'model'; found {_describe(state)}"
        )
    state = family.map_checkpoint(state)
    _check_architecture(path, state, family, model_type, build)
    for name, value in state.items():
        if not torch.isfinite(value).all():
            raise CheckpointError(f"{path}: {name} holds NaN or infinite values; the file is damaged, fetch it again")
    return {name: value.to(torch.float32) for name, value in state.items()}


def _read(path: Path) -> object:
    """The object in a checkpoint file, without running any code that is pickled in it."""
    if not path.exists():
        raise CheckpointError(f"{path}: no such file; pass the path of a .pth or .safetensors checkpoint")
    if path.is_dir():
        raise CheckpointError(f"{path}: is a directory; pass the path of a .pth or .safetensors checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap can only be used" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)  # written before torch 1.6
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        if not found:
            raise CheckpointError(f"{path}: {_UNREADABLE}") from error
        raise CheckpointError(
            f"{path}: holds the pickled object {found[1]}, which could run code when loaded, and is refused "
            "(torch.load with weights_only=True takes tensors only). If you trust the file, load it with torch "
            "yourself and save its state_dict() again"
        ) from error
    except PermissionError as error:
        raise CheckpointError(f"{path}: may not be read; check its permissions") from error
    except Exception as error:  # damaged bytes fail in any way inside torch's readers
        raise CheckpointError(f"{path}: {_UNREADABLE} ({_first_line(error)})") from error


_UNREADABLE = "cannot be read as a checkpoint: truncated, or not a .pth or .safetensors file; fetch it again"


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _describe(state: object) -> str:
    if isinstance(state, dict):
        return f"a dict with the keys {', '.join(map(repr, list(state)[:_LISTED]))}" if state else "an empty dict"
    return type(state).__name__


def _mismatches(expected: Shapes, given: Shapes) -> dict[str, list[str]]:
    """Return names that do not fit, by kind; empty if all do."""
    kinds = {
        "missing": [name for name in expected if name not in given],
        "unexpected": [name for name in given if name not in expected],
        "of another shape": [
            f"{name} {given[name]} instead of {expected[name]}"
            for name in expected
            if name in given and given[name] != expected[name]
        ],
    }
    return {kind: names for kind, names in kinds.items() if names}


def _check_architecture(
    path: Path,
    state: dict[str, torch.Tensor],
    family: ModelFamily,
    model_type: str,
    build: Callable[[str], nn.Module],
) -> None:
    """Raise unless names and shapes are those of `model_type`; name the model type that they do fit, if any."""

    def shapes_of(name: str) -> Shapes:
        return {key: tuple(value.shape) for key, value in build(name).state_dict().items()}

    given = {name: tuple(value.shape) for name, value in state.items()}
    problems = _mismatches(shapes_of(model_type), given)
    if not problems:
        return
    advice = _advice(family, model_type, given, shapes_of)
    details = "; ".join(
        f"{len(names)} {kind}: {', '.join(names[:_LISTED])}{', ...' if len(names) > _LISTED else ''}"
        for kind, names in problems.items()
    )
    raise CheckpointError(f"{path}: does not fit {model_type}: {advice} ({details})")


def _advice(family: ModelFamily, model_type: str, given: Shapes, shapes_of: Callable[[str], Shapes]) -> str:
    """Say what a checkpoint is that does not fit a model type."""
    strangers = [each for each in families() if each.marks(given) and not family.marks(given)]
    if strangers:
        names = ", ".join(variant.name for variant in strangers[0].variants)
        return f"this is a checkpoint of {strangers[0].title}, not of {family.title}; pass its model type ({names})"
    others = (variant.name for variant in family.variants if variant.name != model_type)
    fitting = next((other for other in others if not _mismatches(shapes_of(other), given)), None)
    if fitting is not None:
        return f'this is a {fitting} checkpoint; pass model_type="{fitting}"'
    return f"it fits no other {family.title} model type either; expected a checkpoint with upstream's names"
