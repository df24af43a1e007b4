"""Options of the commands that take a float model, and the checks and the loading that they share."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from tvm_ahcq.models.registry import embedded_models, find_model, model_names

from .arguments import UsageError, input_file
from .console import result

if TYPE_CHECKING:
    from tvm_ahcq.models.float_model import FloatModel

EMBEDDED = " and ".join(embedded_models())
"""Model types whose weights are part of the package, for people."""


def add_model_option(parser: argparse.ArgumentParser | argparse._ArgumentGroup, required: bool) -> None:
    """Add ``--model NAME``."""
    names = model_names()
    parser.add_argument(
        "--model",
        required=required,
        choices=names,
        metavar="NAME",
        help=f"one of {', '.join(names)}; weights of {EMBEDDED} come along",
    )


def add_checkpoint_option(
    parser: argparse.ArgumentParser | argparse._ArgumentGroup, text: str = "the model's weights"
) -> None:
    """Add ``--checkpoint F``."""
    parser.add_argument("--checkpoint", metavar="F", type=input_file, help=text)


def is_embedded(model: str) -> bool:
    """Return True if the weights of a model type are part of the package."""
    return find_model(model)[1].embedded


def check_weights(command: str, model: str, checkpoint: object) -> None:
    """Refuse a model without weights; UsageError."""
    if checkpoint is None and not is_embedded(model):
        raise UsageError(
            f"{command}: {model} comes without weights; give its checkpoint with --checkpoint F "
            f"(weights of {EMBEDDED} come along)"
        )


def check_video(command: str, model: str) -> None:
    """Refuse a model that does not track objects in videos; UsageError."""
    if find_model(model)[0].load_video is None:
        families = [name for name in model_names() if find_model(name)[0].load_video is not None]
        raise UsageError(f"{command}: {model} does not track objects in videos; these do: {', '.join(families)}")


def load_model(args: argparse.Namespace) -> FloatModel:
    """Return the float model of ``--model`` and ``--checkpoint``, with what ``--video`` needs if that is given."""
    family = find_model(args.model)[0]
    load = family.load_video if getattr(args, "video", False) else family.load
    assert load is not None, "check_video has refused it"
    return load(args.model, args.checkpoint)


def print_model(model: FloatModel) -> None:
    """Print the name and the input size of a model."""
    result("model", f"{model.name}, {model.spec.input_text}")
