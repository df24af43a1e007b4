"""The objects of an annotated video: on which frame each is shown to the tracker, and on which it is annotated."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from .video_folders import Video


@dataclass(frozen=True)
class VideoObject:
    """An object of a video.

    Attributes
    ----------
    number : int
        Its value in shared mask files, or the name of its folder.
    first : int
        Index of the first frame on which it has pixels; its mask there is what the tracker is given.
    annotated : tuple of int
        Frames with a mask file that would show it, ascending.
    shown : tuple of int
        Those on which a shared file shows it; where it has files of its own, all of `annotated`.
    """

    number: int
    first: int
    annotated: tuple[int, ...]
    shown: tuple[int, ...]


def video_objects(video: Video) -> list[VideoObject]:
    """Return the objects of a video by number; those without a pixel in any mask are left out.

    Raises
    ------
    EvaluationError
        A mask file cannot be read.
    """
    return _shared(video) if None in video.masks else _separate(video)


def _shared(video: Video) -> list[VideoObject]:
    annotated = video.annotated()
    shown: dict[int, list[int]] = defaultdict(list)
    for frame in annotated:
        for number in video.read_masks(frame):
            shown[number].append(frame)
    return [VideoObject(number, shown[number][0], tuple(annotated), tuple(shown[number])) for number in sorted(shown)]


def _separate(video: Video) -> list[VideoObject]:
    found = []
    for number, files in video.masks.items():
        frames = tuple(sorted(files))
        alone = Video(video.name, video.folder, video.frames, video.size, {number: files})
        first = next((frame for frame in frames if any(mask.any() for mask in alone.read_masks(frame).values())), None)
        if number is not None and first is not None:
            found.append(VideoObject(number, first, frames, frames))
    return sorted(found, key=lambda each: each.number)
