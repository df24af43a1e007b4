"""``SAM2VideoPredictor`` with the signatures, defaults and outputs of ``sam2.SAM2VideoPredictor``, in numpy."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np

from tvm_ahcq.errors import PromptError
from tvm_ahcq.frames import open_frames
from tvm_ahcq.models.execution import SessionLike

from .functions import Sam2Functions
from .memory_bank import Limits, reach
from .spec import Sam2Spec
from .stream import Stream
from .track_frame import Points
from .tracker import Tracker
from .video_options import VideoOptions
from .video_prompts import check_frame, check_mask, check_object, check_points, check_prompted
from .video_state import VideoState

MASK_BYTES = 2**30
"""Of low-resolution masks of tracked frames that are kept for each object, as float16: 8192 frames at 1024 x 1024."""

KEPT_MEMORIES = 32
"""Memories of tracked frames that are kept for each object at least: 1.3 MB each with their masks at 1024 x 1024."""

Found = tuple[int, list[Any], np.ndarray]
"""Number of a frame, names of the objects, and their logits ``(objects, 1, H, W)`` float32."""


class SAM2VideoPredictor:
    """Tracks objects through videos, from clicks, boxes and masks on any frame.

    Parameters
    ----------
    session : SessionLike
        Executes the model; with its memory parts.
    **options : Any
        Attributes of :class:`.VideoOptions`, such as ``non_overlap_masks=True``.

    Attributes
    ----------
    session : SessionLike
        As given.
    options : VideoOptions
        How it tracks.
    """

    device = "cpu"

    def __init__(self, session: SessionLike, **options: Any) -> None:
        self.session, self.options = session, VideoOptions(**options)
        self._functions = Sam2Functions(session)
        self._tracker = Tracker(self._functions, self.options)

    @property
    def model(self) -> Sam2Spec:
        """Figures of the model (``image_size``, ...)."""
        return self.session.model

    def init_state(
        self,
        video_path: Any,
        offload_video_to_cpu: bool = False,
        offload_state_to_cpu: bool = False,
        async_loading_frames: bool = False,
    ) -> VideoState:
        """Open a video.

        Parameters
        ----------
        video_path : path-like or arrays
            A folder of JPEG or PNG files, a video file, or arrays ``(H, W, 3)`` uint8; see
            :func:`tvm_ahcq.frames.open_frames`. Frames are read when they are needed.
        offload_video_to_cpu, offload_state_to_cpu, async_loading_frames : bool
            Upstream's, without effect.

        Returns
        -------
        VideoState
            For the other methods, as ``inference_state``.

        Raises
        ------
        ImageError
            The video cannot be read or has no frames.
        """
        frames = open_frames(video_path)
        bytes_a_mask = 2 * (4 * self.model.grid) ** 2
        memories = max(KEPT_MEMORIES, reach(self.model))
        return VideoState(self._functions, frames, Limits(max(MASK_BYTES // bytes_a_mask, memories), memories))

    def add_new_points_or_box(
        self,
        inference_state: VideoState,
        frame_idx: int,
        obj_id: Any,
        points: Any | None = None,
        labels: Any | None = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any | None = None,
    ) -> Found:
        """Show an object by clicks and a box on a frame, or correct it there.

        Parameters
        ----------
        inference_state : VideoState
            Of :meth:`init_state`.
        frame_idx : int
            Number of the frame, from 0.
        obj_id : hashable
            Name of the object; a new one adds an object.
        points, labels : array-like, optional
            ``(N, 2)``, x and y in pixels of the video, and ``(N,)``: 1 on the object, 0 off it.
        clear_old_points : bool
            Whether they take the place of earlier prompts of that frame, or are added to them.
        normalize_coords : bool
            True for coordinates in pixels of the video, False for coordinates from 0 to 1.
        box : array-like, optional
            ``(4,)``: x0, y0, x1, y1.

        Returns
        -------
        frame_idx : int
            As given.
        obj_ids : list
            Names of all objects.
        masks : numpy.ndarray
            ``(objects, 1, H, W)`` float32 logits on that frame; -1024 where nothing is known of an object yet.

        Raises
        ------
        PromptError
            There is no such frame, or a prompt has a wrong shape or label or lies outside the frame.
        ImageError
            The frame cannot be read.
        """
        frame = check_frame(inference_state, frame_idx)
        if box is not None and not clear_old_points:
            raise PromptError("a box comes before all points of a frame; expected clear_old_points=True with a box")
        new = check_points(self.model, points, labels, box, inference_state.size if normalize_coords else (1, 1))
        return self._prompted(inference_state, frame, obj_id, new, clear_old_points)

    def add_new_points(self, *args: Any, **kwargs: Any) -> Found:
        """Call :meth:`add_new_points_or_box`: upstream's older name."""
        return self.add_new_points_or_box(*args, **kwargs)

    def add_new_mask(self, inference_state: VideoState, frame_idx: int, obj_id: Any, mask: Any) -> Found:
        """Show an object by its mask ``(H, W)`` on a frame, True on the object; the rest is as for points.

        Raises
        ------
        PromptError
            There is no such frame, or the mask has another shape.
        """
        frame = check_frame(inference_state, frame_idx)
        return self._prompted(inference_state, frame, obj_id, check_mask(self.model, mask))

    def propagate_in_video(
        self,
        inference_state: VideoState,
        start_frame_idx: int | None = None,
        max_frame_num_to_track: int | None = None,
        reverse: bool = False,
    ) -> Iterator[Found]:
        """Track all objects through the video.

        Parameters
        ----------
        inference_state : VideoState
            With a prompt for every object.
        start_frame_idx : int, optional
            First frame; the earliest conditioning frame by default.
        max_frame_num_to_track : int, optional
            So many frames after the first one; all by default.
        reverse : bool
            Track towards the beginning. As upstream, nothing is yielded if that starts at frame 0.

        Yields
        ------
        frame_idx : int
            Number of the frame.
        obj_ids : list
            Names of all objects.
        masks : numpy.ndarray
            ``(objects, 1, H, W)`` float32 logits; above 0 is the object.

        Raises
        ------
        PromptError
            There are no prompts, an object has none, or there is no such frame; raised before iteration starts.
        ImageError
            A frame cannot be read. Frames before it stay tracked.
        """
        state = inference_state
        check_prompted(state)
        start = None if start_frame_idx is None else check_frame(state, start_frame_idx)
        count = len(state.frames) if max_frame_num_to_track is None else operator.index(max_frame_num_to_track)
        if count < 0:
            raise PromptError(f"max_frame_num_to_track is {count}; expected 0 or more")
        return self._propagate(state, start, count, reverse)

    def clear_all_prompts_in_frame(
        self, inference_state: VideoState, frame_idx: int, obj_id: Any, need_output: bool = True
    ) -> Found | None:
        """Take back the prompts of an object on a frame; return the masks on it, or None unless `need_output`.

        Raises
        ------
        PromptError
            There is no such frame or object.
        """
        frame = check_frame(inference_state, frame_idx)
        check_object(inference_state, obj_id).clear_prompts(frame)
        return self._shown(inference_state, frame) if need_output else None

    def remove_object(
        self, inference_state: VideoState, obj_id: Any, strict: bool = False, need_output: bool = True
    ) -> tuple[list[Any], list[tuple[int, np.ndarray]]]:
        """Forget an object.

        Parameters
        ----------
        inference_state : VideoState
            Of :meth:`init_state`.
        obj_id : hashable
            Its name.
        strict : bool
            Refuse a name that is not known, rather than do nothing.
        need_output : bool
            Return the masks of the other objects on the frames where it was prompted.

        Returns
        -------
        obj_ids : list
            Names of the other objects.
        updated : list of (int, numpy.ndarray)
            Frames with their logits ``(objects, 1, H, W)`` float32.

        Raises
        ------
        PromptError
            There is no such object, with `strict`.
        """
        if obj_id not in inference_state.objects and not strict:
            return inference_state.obj_ids, []
        gone = check_object(inference_state, obj_id)
        del inference_state.objects[obj_id]
        frames = sorted({*gone.points, *gone.mask_frames}) if need_output and inference_state.objects else []
        return inference_state.obj_ids, [(frame, self._shown(inference_state, frame)[2]) for frame in frames]

    def reset_state(self, inference_state: VideoState) -> None:
        """Forget all objects; the video stays open."""
        inference_state.objects.clear()

    def stream(self, return_logits: bool = False) -> Stream:
        """Return a tracker for frames that come one by one and have no end, such as those of a camera.

        Parameters
        ----------
        return_logits : bool
            Whether its masks are float32 logits, not bool.
        """
        return Stream(self._functions, self.options, return_logits)

    def _prompted(
        self, state: VideoState, frame: int, name: Any, prompt: Points | np.ndarray, replace: bool = True
    ) -> Found:
        conditioning = self._tracker.prompt(state, frame, name, prompt, replace)
        return frame, state.obj_ids, state.full_size(state.masks(frame, conditioning), self.options)

    def _shown(self, state: VideoState, frame: int) -> Found:
        masks = state.masks(frame, state.is_conditioning(frame))
        return frame, state.obj_ids, state.full_size(masks, self.options)

    def _propagate(self, state: VideoState, start: int | None, count: int, reverse: bool) -> Iterator[Found]:
        self._tracker.commit(state)
        objects, names = list(state.objects.values()), state.obj_ids
        if start is None:
            start = min(frame for each in objects for frame in each.bank.conditioning)
        if reverse:
            order = range(start, max(start - count, 0) - 1, -1) if start > 0 else range(0)
        else:
            order = range(start, min(start + count, len(state.frames) - 1) + 1)
        for frame in order:
            masks = [self._tracker.advance(state, each, frame, reverse) for each in objects]
            yield frame, names, state.full_size(masks, self.options)
