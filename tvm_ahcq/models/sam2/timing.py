"""Calls of SAM 2 that profiles and benchmarks time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ahcq.models.evaluation import Timing
from tvm_ahcq.models.execution import SessionLike

from .driver import PADDING_POINT, with_padding
from .functions import MEMORY_FUNCTIONS, Features, Sam2Functions
from .image import prepare, to_model_frame
from .spec import Sam2Spec

if TYPE_CHECKING:
    from torch import nn

_NO_POINT = np.zeros((1, 1, 2)), np.full((1, 1), PADDING_POINT)


def example_inputs(spec: Sam2Spec, function: str, items: int) -> tuple[np.ndarray, ...]:
    """Return an image of noise, or clicks in the middle of features of noise, with masks of noise.

    The memory has what a frame of a long video has: all slots, and as many pointers as are read.
    """
    rng = np.random.default_rng(0)
    if function == "encode_image":
        return (rng.standard_normal((1, 3, spec.image_size, spec.image_size), np.float32),)
    if function in MEMORY_FUNCTIONS:
        return _memory_inputs(spec, function, items, rng)
    middle, grid, channels = spec.image_size / 2, spec.grid, spec.prompt_dim
    clicks = (
        rng.standard_normal((1, channels, grid, grid), np.float32),
        rng.standard_normal((1, channels // 8, 4 * grid, 4 * grid), np.float32),
        rng.standard_normal((1, channels // 4, 2 * grid, 2 * grid), np.float32),
        *with_padding(np.full((items, 1, 2), middle), np.ones((items, 1))),
    )
    if function == "decode":
        return clicks
    return (*clicks, rng.standard_normal((items, 1, 4 * grid, 4 * grid), np.float32))


def _memory_inputs(spec: Sam2Spec, function: str, items: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return noise of the shapes that a function of the memory takes."""
    cells, channels = spec.grid**2, spec.prompt_dim
    frame = rng.standard_normal((1, channels, spec.grid, spec.grid), np.float32)
    mask = (rng.random((items, 1, spec.image_size, spec.image_size)) > 0.5).astype(np.float32)
    if function == "attend_frame":
        return (frame,)
    if function == "attend_memory":
        return (
            rng.standard_normal((1, cells, channels), np.float32),
            rng.standard_normal((spec.memories, cells, spec.memory_dim), np.float32),
            np.arange(spec.memories),
            rng.standard_normal((spec.max_pointers, channels), np.float32),
            np.linspace(1, 0, spec.max_pointers, dtype=np.float32),
        )
    if function == "encode_memory":
        scaled = mask * np.float32(spec.memory_scale) + np.float32(spec.memory_bias)
        return frame, scaled, np.ones((items, 1), np.float32)
    return (mask,)


def torch_modules(
    model: str, functions: Sequence[str], weights: Path | None, eager: bool = False
) -> dict[str, nn.Module]:
    """Return functions of a float SAM 2 as torch modules, by name, with the layers that upstream has.

    They are on the device "meta" if `weights` is None. Upstream's memory attention, whose rotary encoding is complex,
    comes with `eager` only; without, it is the form that can be exported.
    """
    from .export import wrapper
    from .load import build_module, read_state
    from .upstream_memory import EAGER

    sam2 = build_module(model)
    if weights is not None:
        sam2.load_state_dict(read_state(weights, model), assign=True)
    own = EAGER if eager else {}
    modules = {name: own[name](sam2) if name in own else wrapper(sam2, name, upstream=True) for name in functions}
    return {name: module.eval().requires_grad_(False) for name, module in modules.items()}


def stages(session: SessionLike, image: np.ndarray, click: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return the encoder, the decoder of one click on its features, and a predictor's picture and click."""
    from .predictor import Sam2ImagePredictor

    predictor, functions = Sam2ImagePredictor(session), Sam2Functions(session)
    tensor = prepare(session.model, image)
    coords = to_model_frame(session.model, click[None, None], (image.shape[0], image.shape[1]))
    prompt = with_padding(coords, np.ones((1, 1)))
    features = functions.encode(tensor)

    def whole() -> None:
        predictor.set_image(image)
        predictor.predict(click[None], np.array([1]))

    found: dict[str, Callable[[], Any]] = {
        "encode": lambda: functions.encode(tensor),
        "decode": lambda: functions.decode(features, *prompt),
        "whole": whole,
    }
    if session.model.video:
        found |= _tracking_stages(functions, tensor)
    return found


def _tracking_stages(functions: Sam2Functions, tensor: np.ndarray) -> dict[str, Callable[[], Any]]:
    """Return what a frame of a long video computes of one object, and of eight: all memories and pointers are there."""
    spec = functions.session.model
    _, *memory = example_inputs(spec, "attend_memory", 1)
    (frame, masks, score), padding = example_inputs(spec, "encode_memory", 1), with_padding(*_NO_POINT)
    memories = functions.encode_memory(Features(frame, frame, frame, frame), masks, score)
    memory[0] = np.repeat(memories, spec.memories, 0)

    def remember(features: Features) -> None:
        functions.attend_memory(functions.attend_frame(features), *memory)

    def track(objects: int) -> None:
        features = functions.encode(tensor)
        tokens = functions.attend_frame(features)
        for _ in range(objects):
            embedding = functions.attend_memory(tokens, *memory)
            decoded = functions.decode(features._replace(embedding=embedding), *padding)
            functions.encode_memory(features, masks, decoded.score)

    features = functions.encode(tensor)
    return {
        "memory": lambda: remember(features),
        "frame": lambda: track(1),
        "frame8": lambda: track(8),
    }


def upstream_predictor(model: str, weights: Path) -> Any:
    """Return ``sam2.SAM2ImagePredictor`` with the weights of a file."""
    from .load import build_module, read_state

    sam2 = build_module(model, device="cpu")
    sam2.load_state_dict(read_state(weights, model))
    return fit_upstream_predictor(sam2)


def fit_upstream_predictor(sam2: Any) -> Any:
    """Return ``sam2.SAM2ImagePredictor`` of a module; upstream's takes inputs of 1024 x 1024 only until told sizes."""
    from sam2.sam2_image_predictor import SAM2ImagePredictor

    predictor, grid = SAM2ImagePredictor(sam2), sam2.sam_image_embedding_size
    predictor._bb_feat_sizes = [(grid * scale, grid * scale) for scale in (4, 2, 1)]
    return predictor


TRACKING = ("attend_frame", "attend_memory", "encode_memory")

TIMING = Timing(example_inputs, torch_modules, stages, upstream_predictor, TRACKING)
