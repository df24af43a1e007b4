"""Calibration clips: a few frames in a row of each video of a folder."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from tvm_ahcq.errors import CalibrationError, ImageError
from tvm_ahcq.frames import PICTURES, open_frames

CLIP_FRAMES = 4
"""Frames that are taken of a video. The memory attention meets every number of memories by then
(:mod:`tvm_ahcq.models.sam2.drive_memory`)."""

VIDEOS = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
"""Suffixes of the files of a folder that are videos."""


def clip_paths(folder: Path) -> list[Path]:
    """Return the video files and the subfolders with frames of a folder, by name; none if it is no folder."""
    if not folder.is_dir():
        return []
    entries = sorted(folder.iterdir())
    return [path for path in entries if path.suffix.lower() in VIDEOS or _has_frames(path)]


def _has_frames(path: Path) -> bool:
    return path.is_dir() and any(each.suffix.lower() in PICTURES for each in path.iterdir())


def read_clips(videos: Sequence[Path]) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name and some frames of each video.

    Parameters
    ----------
    videos : sequence of Path
        Video files and folders of frames. One that cannot be read is named in a warning and left out.

    Yields
    ------
    name : str
        The path.
    frames : numpy.ndarray
        ``(T, H, W, 3)`` uint8 RGB: ``CLIP_FRAMES`` frames in a row from a place that depends on the video's number
        alone, or all frames of a shorter one.

    Raises
    ------
    CalibrationError
        No video could be read.
    """
    readable, first_error = 0, None
    for number, path in enumerate(videos):
        try:
            frames = open_frames(path)
            start = int(np.random.default_rng(number).integers(max(1, len(frames) - CLIP_FRAMES + 1)))
            taken = [frames[index] for index in range(start, min(start + CLIP_FRAMES, len(frames)))]
        except ImageError as error:
            first_error = first_error or error
            warnings.warn(f"left out of the calibration: {error}", stacklevel=2)
            continue
        readable += 1
        yield str(path), np.stack(taken)
    if not readable:
        raise CalibrationError(f"none of the {len(videos)} videos can be read; the first: {first_error}")
