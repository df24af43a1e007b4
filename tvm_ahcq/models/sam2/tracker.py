"""Objects through a video: answers to prompts, and the next frame."""

from __future__ import annotations

from typing import Any

import numpy as np

from .functions import Sam2Functions
from .memory_bank import read
from .track_frame import FrameTracker, Points, join_points
from .video_options import VideoOptions
from .video_state import TrackedObject, VideoState


class Tracker:
    """Changes the state of a video; prompts are checked before they come here.

    Parameters
    ----------
    functions : Sam2Functions
        Of the model.
    options : VideoOptions
        How it is tracked.
    """

    def __init__(self, functions: Sam2Functions, options: VideoOptions) -> None:
        self._functions, self._options = functions, options
        self._frame_tracker = FrameTracker(functions, options)

    def prompt(
        self, state: VideoState, frame: int, name: Any, prompt: Points | np.ndarray, replace: bool = True
    ) -> bool:
        """Answer points of an object on a frame, or a mask ``(S, S)`` bool; an object of a new name is added.

        Points come behind earlier points of that frame, or take their place (`replace`).

        Returns
        -------
        bool
            Whether the frame is a conditioning frame of the object.
        """
        each = state.objects.get(name) or TrackedObject(state.limits)
        first = each.conditions(frame)
        # a correction of a conditioning frame stays one: upstream drops it when the video is tracked next
        conditioning = first or self._options.add_all_frames_to_correct_as_cond or frame in each.bank.conditioning
        encoded = state.encoded[frame]
        if isinstance(prompt, Points):
            if not replace and frame in each.points:
                prompt = join_points(each.points[frame], prompt)
            embedding = self._embedding(state, each, frame, each.tracked.get(frame, False), first)
            earlier = each.latest(frame, conditioning)
            logits = None if earlier is None else earlier.mask
            output = self._frame_tracker.by_points(frame, encoded, embedding, prompt, logits)
        else:
            output = self._frame_tracker.by_mask(frame, encoded, prompt)
        # nothing has changed up to here, should the model have failed
        each.points.pop(frame, None)
        each.mask_frames.discard(frame)
        if isinstance(prompt, Points):
            each.points[frame] = prompt
        else:
            each.mask_frames.add(frame)
        each.pending[conditioning][frame] = output
        state.objects[name] = each
        return conditioning

    def commit(self, state: VideoState) -> None:
        """Encode the memories of answers to prompts, so that tracking reads them (``propagate_in_video_preflight``)."""
        for each in state.objects.values():
            for conditioning in (False, True):
                pending = each.pending[conditioning]
                for frame, output in list(pending.items()):
                    if output.memory is None:
                        self._frame_tracker.remember(state.encoded[frame], output)
                    if conditioning:
                        each.bank.add_conditioning(output)
                    elif frame not in each.bank.conditioning:
                        each.bank.add(output)
                    self._clear_around(state, each, frame)
                    del pending[frame]

    def advance(self, state: VideoState, each: TrackedObject, frame: int, reverse: bool) -> np.ndarray:
        """Return the logits ``(1, 1, 4h, 4w)`` of an object on a frame: those of a conditioning frame are stored."""
        output = each.bank.conditioning.get(frame)
        if output is None:
            embedding = self._embedding(state, each, frame, reverse, first=False)
            output = self._frame_tracker.by_memory(frame, state.encoded[frame], embedding)
            mask = output.mask
            each.bank.add(output)
        else:
            mask = output.mask
            self._clear_around(state, each, frame)
        each.tracked[frame] = reverse
        return mask

    def _embedding(self, state: VideoState, each: TrackedObject, frame: int, reverse: bool, first: bool) -> np.ndarray:
        encoded = state.encoded[frame]
        if first:
            return self._frame_tracker.embedding(encoded, None)
        reading = read(self._functions.session.model, each.bank, frame, len(state.frames), reverse)
        for _, output in reading.memories:
            if output.memory is None:  # it was dropped long ago
                self._frame_tracker.remember(state.encoded[output.frame], output)
        embedding = self._frame_tracker.embedding(encoded, reading)
        for _, output in reading.memories:
            each.bank.mark_remembered(output)
        return embedding

    def _clear_around(self, state: VideoState, each: TrackedObject, frame: int) -> None:
        """Forget the unprompted frames around a prompted one, where the options say so; its own answer stays."""
        options = self._options
        alone = len(state.objects) == 1 or options.clear_non_cond_mem_for_multi_obj
        if options.clear_non_cond_mem_around_input and alone:
            model = self._functions.session.model
            distance = model.memory_stride * model.memories
            for number in range(frame - distance, frame + distance + 1):
                if number != frame:
                    each.bank.forget(number)
