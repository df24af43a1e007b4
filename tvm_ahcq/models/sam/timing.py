"""Calls of SAM that profiles and benchmarks time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ahcq.models.evaluation import Timing
from tvm_ahcq.models.execution import SessionLike

from .functions import SamFunctions
from .image import prepare
from .spec import SamSpec

if TYPE_CHECKING:
    from torch import nn


def example_inputs(spec: SamSpec, function: str, items: int) -> tuple[np.ndarray, ...]:
    """Return an image of noise, or clicks in the middle of an embedding of noise, with masks of noise."""
    rng = np.random.default_rng(0)
    if function == "encode_image":
        return (rng.standard_normal((1, 3, spec.image_size, spec.image_size), np.float32),)
    middle = spec.image_size / 2
    clicks = (
        rng.standard_normal((1, spec.prompt_dim, spec.grid, spec.grid), np.float32),
        np.tile(np.array([[middle, middle], [0, 0]], np.float32), (items, 1, 1)),
        np.tile(np.array([1, -1], np.float32), (items, 1)),
    )
    if function == "decode":
        return clicks
    return (*clicks, rng.standard_normal((items, 1, 4 * spec.grid, 4 * spec.grid), np.float32))


def torch_modules(
    model: str, functions: Sequence[str], weights: Path | None, eager: bool = False
) -> dict[str, nn.Module]:
    """Return functions of a float SAM as torch modules, by name; on the device "meta" if `weights` is None.

    `eager` changes nothing: all of them can be exported.
    """
    from .export import wrapper
    from .load import build_module, read_state

    sam = build_module(model)
    if weights is not None:
        sam.load_state_dict(read_state(weights, model), assign=True)
    return {name: wrapper(sam, name).requires_grad_(False) for name in functions}


def stages(session: SessionLike, image: np.ndarray, click: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the encoder, the decoder of one click on its embedding, and a predictor's picture and click."""
    from .predictor import SamPredictor

    predictor, functions = SamPredictor(session), SamFunctions(session)
    tensor = prepare(session.model, image)
    coords = predictor.transform.apply_coords(click, image.shape[:2])
    prompt = np.array([[coords, (0, 0)]], np.float32), np.array([[1, -1]], np.float32)
    embedding = np.ascontiguousarray(functions.encode(tensor), np.float32)

    def whole() -> None:
        predictor.set_image(image)
        predictor.predict(click[None], np.array([1]))

    return {
        "encode": lambda: functions.encode(tensor),
        "decode": lambda: functions.decode(embedding, *prompt),
        "whole": whole,
    }


def upstream_predictor(model: str, weights: Path) -> Any:
    """Return ``segment_anything.SamPredictor`` with the weights of a file."""
    from tvm_ahcq.models.torchvision_compat import ensure_torchvision

    from .load import build_module, read_state

    ensure_torchvision()
    from segment_anything import SamPredictor

    sam = build_module(model, device="cpu")
    sam.load_state_dict(read_state(weights, model))
    return SamPredictor(sam)


TIMING = Timing(example_inputs, torch_modules, stages, upstream_predictor)
