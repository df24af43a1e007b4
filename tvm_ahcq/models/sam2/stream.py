"""Tracking of frames that come one by one and have no end, in bounded memory."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.image_files import check_image

from .functions import Sam2Functions
from .memory_bank import Limits, reach
from .tracker import Tracker
from .video_options import VideoOptions
from .video_prompts import check_mask, check_object, check_points
from .video_state import VideoState

KEPT_CONDITIONING = 8
"""Prompted frames that are remembered of each object, the latest ones."""


class _Live:
    """The frame that is shown, as a video without an end."""

    def __init__(self, image: np.ndarray) -> None:
        self.size = (image.shape[0], image.shape[1])
        self.image, self.number = image, 0

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, number: int) -> np.ndarray:
        if number != self.number:
            raise IndexError(f"frame {number} is gone, the stream is at frame {self.number}")
        return self.image


class Stream:
    """Tracks objects through frames as they come; made by ``SAM2VideoPredictor.stream``.

    A frame is read once. Of each object, the memories and pointers that the next frame reads are kept, and no others.

    Parameters
    ----------
    functions : Sam2Functions
        Of the model.
    options : VideoOptions
        How it tracks.
    return_logits : bool
        Whether masks are float32 logits, not bool.
    """

    def __init__(self, functions: Sam2Functions, options: VideoOptions, return_logits: bool = False) -> None:
        self._functions, self._options, self._return_logits = functions, options, return_logits
        self._tracker = Tracker(functions, options)
        self._state: VideoState | None = None
        self._live: _Live | None = None
        self._is_tracked = False
        model = functions.session.model
        self._limits = Limits(max(reach(model), model.max_pointers), reach(model), KEPT_CONDITIONING)

    @property
    def obj_ids(self) -> list[Any]:
        """Names of the objects."""
        return [] if self._state is None else self._state.obj_ids

    def add(
        self,
        frame: np.ndarray,
        points: Any | None = None,
        labels: Any | None = None,
        box: Any | None = None,
        mask: Any | None = None,
        obj_id: Any = 1,
    ) -> dict[Any, np.ndarray]:
        """Show an object on a frame: on the next one, or again on the current one, to correct what was found there.

        Parameters
        ----------
        frame : numpy.ndarray
            ``(H, W, 3)`` uint8 RGB.
        points, labels : array-like, optional
            ``(N, 2)``, x and y in pixels, and ``(N,)``: 1 on the object, 0 off it. They are added to earlier ones of
            that frame.
        box : array-like, optional
            ``(4,)``: x0, y0, x1, y1; takes the place of earlier prompts of that frame.
        mask : array-like, optional
            ``(H, W)``, True on the object; in place of points and a box.
        obj_id : hashable
            Name of the object; a new one adds an object.

        Returns
        -------
        dict
            Masks of all objects that are known on the frame so far, as :meth:`step` returns them.

        Raises
        ------
        PromptError
            A prompt has a wrong shape or label or lies outside the frame.
        ImageError
            The frame is no image, or has another size than those before it.
        """
        image = check_image(frame)
        model, size = self._functions.session.model, (image.shape[0], image.shape[1])
        if mask is not None and (points is not None or labels is not None or box is not None):
            raise PromptError("a mask stands alone; expected either a mask, or points and a box")
        prompt = check_points(model, points, labels, box, size) if mask is None else check_mask(model, mask)
        state, number = self._show(image)
        conditioning = self._tracker.prompt(state, number, obj_id, prompt, replace=box is not None)
        return self._named(state, state.masks(number, conditioning))

    def step(self, frame: np.ndarray) -> dict[Any, np.ndarray]:
        """Track all objects on the next frame, or on the one that prompts were just added to.

        Parameters
        ----------
        frame : numpy.ndarray
            ``(H, W, 3)`` uint8 RGB.

        Returns
        -------
        dict
            Mask ``(H, W)`` of each object by its name: bool, or float32 logits. Empty while there are no objects.

        Raises
        ------
        ImageError
            The frame is no image, or has another size than those before it.
        """
        state, number = self._show(check_image(frame))
        self._tracker.commit(state)
        if self._is_tracked:  # corrected since
            return self._named(state, state.masks(number, conditioning=False))
        return self._named(state, self._track(state, number))

    def remove(self, obj_id: Any) -> None:
        """Forget an object; PromptError if there is none of that name."""
        if self._state is None:
            raise PromptError(f"there is no object {obj_id!r}; none was added yet")
        check_object(self._state, obj_id)
        del self._state.objects[obj_id]

    def reset(self) -> None:
        """Forget all objects and frames; the next frame may have another size."""
        self._state = self._live = None
        self._is_tracked = False

    def _show(self, image: np.ndarray) -> tuple[VideoState, int]:
        """Make a frame the current one; track the one before, if prompts were added to it and nothing else was done."""
        if self._live is None or self._state is None:
            self._live = _Live(image.copy())
            self._state = VideoState(self._functions, self._live, self._limits)
            return self._state, 0
        live, state = self._live, self._state
        if image.shape[:2] != live.size:
            raise ImageError(
                f"the frame has {image.shape[1]} x {image.shape[0]} pixels (width x height), those before it have "
                f"{live.size[1]} x {live.size[0]}; expected one size, or reset() before"
            )
        if np.array_equal(image, live.image):
            return state, live.number
        if not self._is_tracked:
            self._tracker.commit(state)
            self._track(state, live.number)
        live.image, live.number, self._is_tracked = image.copy(), live.number + 1, False
        return state, live.number

    def _track(self, state: VideoState, number: int) -> list[np.ndarray]:
        masks = []
        for each in state.objects.values():
            masks.append(self._tracker.advance(state, each, number, reverse=False))
            each.forget_before(number - self._limits.outputs)
        self._is_tracked = True
        return masks

    def _named(self, state: VideoState, masks: Any) -> dict[Any, np.ndarray]:
        full = state.full_size(masks, self._options)[:, 0]
        return dict(zip(state.objects, full if self._return_logits else full > 0, strict=True))
