"""Features of the latest frames of a video, encoded when they are needed."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from tvm_ahcq.frames import Frames

from .functions import Features, Sam2Functions
from .image import prepare_frame

KEPT_FRAMES = 4
"""Encoded frames that are kept: about 25 MB each at 1024 x 1024."""


class EncodedFrame:
    """A frame as the model sees it.

    Attributes
    ----------
    features : Features
        Of the image encoder.
    """

    def __init__(self, functions: Sam2Functions, features: Features) -> None:
        self._functions, self.features = functions, features

    @cached_property
    def tokens(self) -> np.ndarray:
        """``(1, hw, C)`` float32: what all objects share of reading memories."""
        return self._functions.attend_frame(self.features)


class EncodedFrames:
    """Frames of a video by number, encoded; the latest few are kept.

    Parameters
    ----------
    functions : Sam2Functions
        Of the model.
    frames : Frames
        Of the video.
    """

    def __init__(self, functions: Sam2Functions, frames: Frames) -> None:
        self._functions, self._frames = functions, frames
        self._kept: dict[int, EncodedFrame] = {}

    def __getitem__(self, number: int) -> EncodedFrame:
        encoded = self._kept.pop(number, None)
        if encoded is None:
            image = prepare_frame(self._functions.session.model, self._frames[number])
            encoded = EncodedFrame(self._functions, self._functions.encode(image))
        self._kept[number] = encoded
        while len(self._kept) > KEPT_FRAMES:
            del self._kept[next(iter(self._kept))]
        return encoded

    def clear(self) -> None:
        """Forget all that were encoded."""
        self._kept.clear()
