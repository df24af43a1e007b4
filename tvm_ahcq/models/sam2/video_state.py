"""State of tracking: a video, the objects in it, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tvm_ahcq.frames import Frames

from .frame_features import EncodedFrames
from .functions import Sam2Functions
from .masks import NO_OBJECT, enlarge, separate
from .memory_bank import Limits, MemoryBank, Output
from .track_frame import Points
from .video_options import VideoOptions


class TrackedObject:
    """One object: its prompts, and what was found of it.

    Attributes
    ----------
    points : dict of int to Points
        Prompts by frame.
    mask_frames : set of int
        Frames with a mask prompt.
    bank : MemoryBank
        Outputs that later frames read.
    pending : tuple of dict of int to Output
        Answers to prompts since the object was tracked last; of frames that stay unconditioned, and of conditioning
        frames.
    tracked : dict of int to bool
        Frames that were tracked, and whether in reverse.
    """

    def __init__(self, limits: Limits) -> None:
        self.points: dict[int, Points] = {}
        self.mask_frames: set[int] = set()
        self.bank = MemoryBank(limits)
        self.pending: tuple[dict[int, Output], dict[int, Output]] = ({}, {})
        self.tracked: dict[int, bool] = {}

    @property
    def is_prompted(self) -> bool:
        """Whether there is a conditioning frame to track from."""
        return bool(self.bank.conditioning or self.pending[True])

    def latest(self, frame: int, conditioning: bool) -> Output | None:
        """Return the last output of a frame; of answers to prompts, those of one kind only."""
        return self.pending[conditioning].get(frame) or self.bank.get(frame)

    def conditions(self, frame: int) -> bool:
        """Whether a new prompt of a frame starts from the frame alone, without memory."""
        return frame not in self.tracked or not self.bank.conditioning

    def clear_prompts(self, frame: int) -> None:
        """Forget the prompts of a frame; what was found there is one of the unprompted frames from then on."""
        self.points.pop(frame, None)
        self.mask_frames.discard(frame)
        for pending in self.pending:
            pending.pop(frame, None)
        if self.bank.demote(frame):
            self.tracked.pop(frame, None)

    def forget_before(self, frame: int) -> None:
        """Forget that earlier frames were tracked or prompted, but for conditioning frames."""
        old = [number for number in self.tracked if number < frame and number not in self.bank.conditioning]
        for number in old:
            del self.tracked[number]
            self.points.pop(number, None)
            self.mask_frames.discard(number)


class VideoState:
    """What ``init_state`` returns; opaque to users.

    Attributes
    ----------
    frames : Frames
        Of the video.
    encoded : EncodedFrames
        Features of the latest few.
    size : tuple of int
        Height and width of the video.
    objects : dict
        :class:`TrackedObject` by the user's name for it, in the order in which they came.
    limits : Limits
        Of each object's memory bank.
    """

    def __init__(self, functions: Sam2Functions, frames: Frames, limits: Limits) -> None:
        self.frames, self.size, self.limits = frames, frames.size, limits
        self.encoded = EncodedFrames(functions, frames)
        self.objects: dict[Any, TrackedObject] = {}

    @property
    def obj_ids(self) -> list[Any]:
        """Names of the objects."""
        return list(self.objects)

    def is_conditioning(self, frame: int) -> bool:
        """Whether a prompt of any object that is not tracked yet makes a frame a conditioning frame."""
        return any(frame in each.pending[True] for each in self.objects.values())

    def masks(self, frame: int, conditioning: bool) -> list[np.ndarray | None]:
        """Return low-resolution logits ``(1, 1, 4h, 4w)`` of each object on a frame; None where nothing is known."""
        found = [each.latest(frame, conditioning) for each in self.objects.values()]
        return [None if output is None else output.mask for output in found]

    def full_size(self, masks: Sequence[np.ndarray | None], options: VideoOptions) -> np.ndarray:
        """Return masks as ``(objects, 1, H, W)`` float32 logits, kept apart if the options say so."""
        unknown = np.full((1, 1, 1, 1), NO_OBJECT, np.float32)
        parts = [enlarge(unknown if mask is None else mask.astype(np.float32, copy=False), self.size) for mask in masks]
        if not parts:
            return np.zeros((0, 1, *self.size), np.float32)
        full = parts[0] if len(parts) == 1 else np.concatenate(parts)
        return separate(full) if options.non_overlap_masks else full
