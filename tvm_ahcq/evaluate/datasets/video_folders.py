"""Videos with masks as DAVIS 2017, SA-V and MOSE lay them out in folders: their frames and mask files.

DAVIS and MOSE have one palette PNG a frame, whose values are the numbers of objects; SA-V has a folder of
black-and-white PNGs for each object, since its objects may overlap, and annotates every fourth frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from tvm_ahcq.errors import EvaluationError

from .mask_folder import load_labels, object_labels
from .pictures import extent, stored_size

VOID = 255
"""Value in a shared mask file that is no object: DAVIS marks pixels with it that belong to nobody."""

_FRAMES = (".jpg", ".jpeg")
"""Extensions of frames; ``SAM2VideoPredictor`` reads no others."""


@dataclass(frozen=True)
class Layout:
    """How a benchmark lays out its files.

    Attributes
    ----------
    title : str
        Name for people.
    folders : tuple of (str, str)
        Where folders of frames and of masks are, below the root; the first pair that exists counts.
    lists : tuple of str
        Files with names of videos; the first that exists counts. Without one, every folder of masks is a video.
    per_object : bool
        Each object has a folder of its own.
    from_first_sight : bool
        The benchmark's evaluator counts an object from the first frame on which annotation or prediction show it.
    """

    title: str
    folders: tuple[tuple[str, str], ...]
    lists: tuple[str, ...] = ()
    per_object: bool = False
    from_first_sight: bool = True


LAYOUTS = {
    "davis": Layout(
        "DAVIS 2017",
        (
            ("JPEGImages/480p", "Annotations/480p"),
            ("JPEGImages/Full-Resolution", "Annotations/Full-Resolution"),
        ),
        ("ImageSets/2017/val.txt",),
        from_first_sight=False,
    ),
    "sav": Layout("SA-V", (("JPEGImages_24fps", "Annotations_6fps"),), ("sav_val.txt", "sav_test.txt"), True),
    "mose": Layout("MOSE", (("JPEGImages", "Annotations"),)),
}
"""Layouts by the name that a user types; of those that fit a folder the first is meant."""


@dataclass(frozen=True)
class Video:
    """A video and its mask files.

    Attributes
    ----------
    name : str
        Name of its folder.
    folder : Path
        Folder of its frames.
    frames : tuple of str
        Names of the frames without extension, in their order.
    size : tuple of int
        ``(H, W)`` of frames and masks, in pixels.
    masks : dict
        Mask files by index of their frame, for each object by its number; None stands for all objects together.
    """

    name: str
    folder: Path
    frames: tuple[str, ...]
    size: tuple[int, int]
    masks: dict[int | None, dict[int, Path]]

    def annotated(self) -> list[int]:
        """Indices of the frames with a mask file, ascending."""
        return sorted({frame for files in self.masks.values() for frame in files})

    def read_masks(self, frame: int) -> dict[int, np.ndarray]:
        """Bool masks ``(H, W)`` of a frame by number of the object; in a shared file, of those that have pixels.

        Raises
        ------
        EvaluationError
            A file cannot be read.
        """
        found = {}
        for number, files in self.masks.items():
            if frame not in files:
                continue
            labels = load_labels(files[frame])
            if number is not None:
                found[number] = labels > 0
                continue
            if labels.max() > VOID or labels.min() < 0:
                raise EvaluationError(f"{files[frame]}: has values up to {labels.max()}; expected 8 bits a pixel")
            found.update({label: labels == label for label in object_labels(labels, VOID)})
        return found


@dataclass(frozen=True)
class VideoSet:
    """The videos of a benchmark in one folder, and their layout."""

    root: Path
    layout: Layout
    videos: tuple[Video, ...]


def read_videos(
    root: str | os.PathLike[str],
    dataset: str | None = None,
    video_list: str | os.PathLike[str] | None = None,
    limit: int | None = None,
) -> VideoSet:
    """Find the videos of a data set, and check their files without decoding all of them.

    Parameters
    ----------
    root : path-like
        Folder with ``JPEGImages``, ``Annotations`` and so on.
    dataset : str, optional
        One of :data:`LAYOUTS`; by default the one whose folders are there.
    video_list : path-like, optional
        Text file with the name of a video in each line, in place of the benchmark's own list.
    limit : int, optional
        Take that many videos at most, the first of the list.

    Returns
    -------
    VideoSet

    Raises
    ------
    EvaluationError
        A folder, a video of the list or its masks are missing; a mask file is damaged, belongs to no frame, or has
        another size than the frames; or no mask of a video shows an object.
    """
    root = Path(root)
    layout, frames, masks = _find_folders(root, dataset)
    names = _names(root, layout, masks, None if video_list is None else Path(video_list))[:limit]
    return VideoSet(root, layout, tuple(_read_video(name, frames / name, masks / name, layout) for name in names))


def _find_folders(root: Path, dataset: str | None) -> tuple[Layout, Path, Path]:
    if dataset is not None and dataset not in LAYOUTS:
        raise EvaluationError(f"unknown data set {dataset!r}; expected one of {', '.join(LAYOUTS)}")
    if not root.is_dir():
        raise EvaluationError(f"{root}: {'is not a folder' if root.exists() else 'no such folder'}")
    layouts = LAYOUTS.values() if dataset is None else [LAYOUTS[dataset]]
    for layout in layouts:
        for frames, masks in layout.folders:
            if (root / frames).is_dir() and (root / masks).is_dir():
                return layout, root / frames, root / masks
    wanted = "; ".join(f"{each.title}: {' and '.join(each.folders[0])}" for each in layouts)
    raise EvaluationError(f"{root}: folders of frames and masks are missing; expected {wanted}")


def _names(root: Path, layout: Layout, masks: Path, video_list: Path | None) -> list[str]:
    lists = [root / name for name in layout.lists if (root / name).is_file()]
    source = video_list or (lists[0] if lists else None)
    if source is None:
        names = sorted(path.name for path in masks.iterdir() if path.is_dir())
    else:
        try:
            names = [line.strip() for line in source.read_text().splitlines() if line.strip()]
        except (OSError, UnicodeDecodeError) as error:
            raise EvaluationError(f"{source}: the list of videos cannot be read: {error}") from error
    twice = [name for name in names if names.count(name) > 1]
    if not names or twice:
        what = f"names {twice[0]} twice" if twice else "no video in it"
        raise EvaluationError(f"{source or masks}: {what}; expected the name of one video in each line")
    return names


def _read_video(name: str, folder: Path, masks: Path, layout: Layout) -> Video:
    for path, what in ((folder, "frames"), (masks, "masks")):
        if Path(name).name != name or not path.is_dir():
            raise EvaluationError(f"video {name}: there is no folder {path} with its {what}; check the list of videos")
    files = _numbered(folder, _FRAMES, "frames")
    indices = {path.stem: index for index, path in enumerate(files)}
    size = stored_size(files[0])
    video = Video(name, folder, tuple(indices), size, _mask_files(masks, indices, layout.per_object))
    for mask in sorted({path for found in video.masks.values() for path in found.values()}):
        _check_mask(mask, files[0], size)
    if not any(mask.any() for frame in video.annotated() for mask in video.read_masks(frame).values()):
        raise EvaluationError(f"{masks}: no mask shows an object; expected one on the first frame")
    return video


def _numbered(folder: Path, extensions: tuple[str, ...], what: str) -> list[Path]:
    """Files of a folder by the number that is their name."""
    files = [path for path in folder.iterdir() if path.suffix.lower() in extensions and not path.name.startswith(".")]
    if not files:
        raise EvaluationError(f"{folder}: no {what} in it; expected 00000{extensions[0]}, 00001{extensions[0]}, ...")
    odd = [path for path in files if not path.stem.isdecimal()]
    if odd:
        raise EvaluationError(f"{odd[0]}: the name of a file of {what} must be its number, such as 00000")
    files.sort(key=lambda path: int(path.stem))
    for first, second in pairwise(files):
        if int(first.stem) == int(second.stem):
            raise EvaluationError(f"{folder}: {first.name} and {second.name} have the same number")
    return files


def _mask_files(masks: Path, indices: dict[str, int], per_object: bool) -> dict[int | None, dict[int, Path]]:
    """Mask files by object and by index of their frame."""
    found: dict[int | None, dict[int, Path]] = {}
    for number, folder in _object_folders(masks) if per_object else [(None, masks)]:
        found[number] = {}
        for path in _numbered(folder, (".png",), "masks"):
            if path.stem not in indices:
                raise EvaluationError(
                    f"{path}: there is no frame {path.stem}.jpg; expected a mask for each of its frames"
                )
            found[number][indices[path.stem]] = path
    return found


def _object_folders(masks: Path) -> Iterator[tuple[int, Path]]:
    folders = sorted(path for path in masks.iterdir() if path.is_dir())
    if not folders:
        raise EvaluationError(f"{masks}: no masks in it; expected a folder for each object: 000, 001, ...")
    for folder in folders:
        if not folder.name.isdecimal():
            raise EvaluationError(f"{folder}: the name of an object's folder must be its number, such as 000")
        yield int(folder.name), folder


def _check_mask(mask: Path, frame: Path, size: tuple[int, int]) -> None:
    """Refuse a mask of another size, or one that has been cut off."""
    own = stored_size(mask)
    if own != size:
        raise EvaluationError(
            f"{mask} is {extent(own)} pixels, the frame {frame} {extent(size)} (width x height); "
            "a mask must have the size of its frames: resize it with nearest neighbour"
        )
    if not is_whole_png(mask):
        load_labels(mask)  # says what is wrong, if something is


def is_whole_png(path: Path) -> bool:
    """True if a PNG file ends with the chunk that ends one; a file that was cut off does not."""
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - 12))
        return file.read()[4:8] == b"IEND"
