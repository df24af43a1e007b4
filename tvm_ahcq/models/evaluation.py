"""The parts of a model description that evaluation, profiles and benchmarks query."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from torch import nn

    from .execution import SessionLike


@dataclass(frozen=True, eq=False)
class PromptedImage:
    """A picture and its prompts as the functions of a model take them.

    Attributes
    ----------
    image : numpy.ndarray
        Input of the function that encodes, preprocessed.
    prompts : tuple of numpy.ndarray
        Inputs of the function that decodes, after those that the other function computes; clicks first, then boxes.
    clicks : int
        Number of clicks among the prompts.
    input_size : tuple of int
        ``(H, W)`` of the picture within the model's input.
    """

    image: np.ndarray = field(repr=False)
    prompts: tuple[np.ndarray, ...] = field(repr=False)
    clicks: int
    input_size: tuple[int, int]


@dataclass(frozen=True)
class Prompting:
    """Prompts and masks of promptable segmentation. ``spec`` is the model's figures, with ``mask_threshold`` in logits.

    The function that decodes takes outputs of the one that encodes, by their names, then the prompts; its first outputs
    are mask logits ``(B, M, h, w)`` and their scores ``(B, M)``.

    Attributes
    ----------
    place : callable
        ``place(spec, image, clicks, boxes) -> PromptedImage``; `image` ``(H, W, 3)`` uint8 RGB, `clicks` ``(P, 2)`` and
        `boxes` ``(Q, 4)`` in pixels of it.
    choose : callable
        ``choose(scores, clicks) -> indices``: of each prompt, the mask that counts; the first `clicks` prompts are
        clicks.
    crop : callable
        ``crop(spec, logits, placed) -> logits``: mask logits without the model's padding.
    enlarge : callable
        ``enlarge(spec, logits, placed, size) -> masks``: boolean masks of the picture's size ``(H, W)``.
    """

    place: Callable[[Any, np.ndarray, np.ndarray, np.ndarray], PromptedImage]
    choose: Callable[[np.ndarray, int], np.ndarray]
    crop: Callable[[Any, np.ndarray, PromptedImage], np.ndarray]
    enlarge: Callable[[Any, np.ndarray, PromptedImage, tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Timing:
    """Calls to time.

    Attributes
    ----------
    example_inputs : callable
        ``example_inputs(spec, function, items) -> arrays``: inputs of a function, by its name, for a number of
        independent items (prompts). Their values do not matter.
    torch_modules : callable
        ``torch_modules(model, functions, weights, eager) -> modules``: functions of the float model as torch modules,
        by name; without a file of weights on the device ``"meta"``. `eager` asks for upstream's own code where that
        cannot be exported.
    stages : callable
        ``stages(session, image, click) -> calls``: what benchmarks time, by stage of
        :func:`tvm_ahcq.bench.task.stages_of`; `image` ``(H, W, 3)`` uint8 RGB, `click` ``(2,)`` x and y in pixels of
        it. The stage that encodes returns the embedding, alone or first of a tuple.
    upstream_predictor : callable
        ``upstream_predictor(model, weights) -> predictor``: the predictor of the model's own package, in torch, with
        the weights of a file.
    tracking : tuple of str
        Functions that a frame of a video calls besides those that encode and decode; () for a family without video.
    """

    example_inputs: Callable[[Any, str, int], tuple[np.ndarray, ...]]
    torch_modules: Callable[..., dict[str, nn.Module]]
    stages: Callable[[SessionLike, np.ndarray, np.ndarray], dict[str, Callable[[], Any]]]
    upstream_predictor: Callable[[str, Path], Any]
    tracking: tuple[str, ...] = ()
