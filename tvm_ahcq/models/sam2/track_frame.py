"""One object on one frame: from a prompt, or from memory, to its mask, its pointer and its memory."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .driver import PADDING_POINT, with_padding
from .frame_features import EncodedFrame
from .functions import Decoded, Sam2Functions
from .image import resize_smoothly
from .masks import NO_OBJECT, choose_stable, enlarge, fill_holes, memory_input
from .memory_bank import Output, Reading
from .predictor import LOW_RES_LIMIT
from .video_options import VideoOptions

_SURE = 10.0
"""Logits of a mask prompt, and its object score, are plus or minus this."""


class Points(NamedTuple):
    """Clicks, and corners of a box, on one frame.

    Attributes
    ----------
    coords : numpy.ndarray
        ``(N, 2)`` float32, in pixels of the model input.
    labels : numpy.ndarray
        ``(N,)`` float32.
    """

    coords: np.ndarray
    labels: np.ndarray


class FrameTracker:
    """Finds one object on one frame (upstream, ``SAM2Base.track_step``).

    Parameters
    ----------
    functions : Sam2Functions
        Of the model.
    options : VideoOptions
        How it is tracked.
    """

    def __init__(self, functions: Sam2Functions, options: VideoOptions) -> None:
        self._functions, self._options = functions, options
        self._model = functions.session.model

    def embedding(self, encoded: EncodedFrame, reading: Reading | None) -> np.ndarray:
        """Return the embedding ``(1, C, h, w)`` of a frame that reads memories; None for a frame without memory."""
        if reading is None:
            return encoded.features.embedding
        return self._functions.attend_memory(encoded.tokens, *reading.arrays())

    def by_points(
        self, number: int, encoded: EncodedFrame, embedding: np.ndarray, points: Points, earlier: np.ndarray | None
    ) -> Output:
        """Find the object that points show; `earlier` are logits ``(1, 1, 4h, 4w)`` of that frame."""
        if earlier is not None:
            earlier = np.clip(earlier.astype(np.float32), -LOW_RES_LIMIT, LOW_RES_LIMIT)
        mask, pointer, score = self._decode(encoded, embedding, points, earlier)
        return Output(number, self._filled(mask), pointer, score, prompted=True)

    def by_mask(self, number: int, encoded: EncodedFrame, mask: np.ndarray) -> Output:
        """Take a mask ``(S, S)`` bool as the answer; the decoder gives the pointer only."""
        side = 4 * self._model.grid
        plane = mask.astype(np.float32)
        mask_input, absent_pointer = self._functions.embed_mask(plane[None, None])
        features = encoded.features._replace(embedding=encoded.features.frame)
        present = bool(mask.any())
        pointer = self._functions.decode(features, *_no_points(), mask_input).pointers[:, 0]
        logits = resize_smoothly(plane * np.float32(2 * _SURE) - np.float32(_SURE), (side, side))[None, None]
        score = np.full((1, 1), _SURE if present else -_SURE, np.float32)
        return Output(number, self._filled(logits), pointer if present else absent_pointer, score, prompted=True)

    def by_memory(self, number: int, encoded: EncodedFrame, embedding: np.ndarray) -> Output:
        """Find the object again, and encode its memory."""
        mask, pointer, score = self._decode(encoded, embedding, None, None)
        output = Output(number, mask, pointer, score, prompted=False)
        self.remember(encoded, output)
        output.mask = self._filled(mask)
        return output

    def remember(self, encoded: EncodedFrame, output: Output) -> None:
        """Encode the memory of an output from its mask."""
        side = self._model.image_size
        mask = enlarge(output.mask.astype(np.float32, copy=False), (side, side))
        binarize = output.prompted and self._options.binarize_mask_from_pts_for_mem_enc
        scaled = memory_input(self._model, mask, binarize)
        memory = self._functions.encode_memory(encoded.features, scaled, output.score)
        output.memory = round_to_bfloat16(memory) if memory.dtype == np.float32 else memory

    def _decode(
        self, encoded: EncodedFrame, embedding: np.ndarray, points: Points | None, earlier: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the mask ``(1, 1, 4h, 4w)`` that is chosen, its pointer ``(1, C)``, and the score ``(1, 1)``."""
        tokens = _no_points() if points is None else with_padding(points.coords[None], points.labels[None])
        features = encoded.features._replace(embedding=embedding)
        decoded = self._functions.decode(features, *tokens, earlier)
        least, most = self._model.multimask_points
        mask, pointer = self._choose(decoded, least <= (0 if points is None else len(points.labels)) <= most)
        if not decoded.score[0, 0] > 0:
            mask = np.full_like(mask, NO_OBJECT)
        return mask, pointer, decoded.score

    def _choose(self, decoded: Decoded, several: bool) -> tuple[np.ndarray, np.ndarray]:
        """Choose among three masks, or take the first one if it is stable; the pointer is that of its token."""
        if several:
            best = 1 + int(decoded.iou[0, 1:].argmax())
            return decoded.masks[:, best : best + 1], decoded.pointers[:, best]
        if self._options.stability:
            return choose_stable(self._model, decoded.masks, decoded.iou)[0], decoded.pointers[:, 0]
        return decoded.masks[:, :1], decoded.pointers[:, 0]

    def _filled(self, mask: np.ndarray) -> np.ndarray:
        return fill_holes(mask, self._options.fill_hole_area) if self._options.fill_hole_area > 0 else mask


def join_points(first: Points, second: Points) -> Points:
    """Return the points of both, in order."""
    coords, labels = (np.concatenate(pair) for pair in zip(first, second, strict=True))
    return Points(coords, labels)


def round_to_bfloat16(values: np.ndarray) -> np.ndarray:
    """Return float32 values rounded to bfloat16, half to even, as float32; finite numbers only."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
    rounded &= np.uint32(0xFFFF0000)
    return rounded.view(np.float32)


def _no_points() -> tuple[np.ndarray, np.ndarray]:
    """Upstream's form of no points: one that is ignored, and the padding behind it."""
    return with_padding(np.zeros((1, 1, 2)), np.full((1, 1), PADDING_POINT))
