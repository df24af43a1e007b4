"""Generated clips as files, in the folders of DAVIS 2017."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from tvm_ahcq.clips import LENGTH, Clip, clips

from .video_folders import LAYOUTS
from .vos_predictions import write_palette_png

(FRAMES, MASKS), *_ = LAYOUTS["davis"].folders
(VIDEO_LIST,) = LAYOUTS["davis"].lists
"""What :func:`write_clips` writes below its folder."""


def write_clips(folder: str | os.PathLike[str], first: int, count: int, length: int = LENGTH, size: int = 256) -> None:
    """Write the clips ``first .. first + count - 1`` as a data set.

    - ``JPEGImages/480p/CLIP/00000.jpg``: frames.
    - ``Annotations/480p/CLIP/00000.png``: palette PNGs of the objects that show on the first frame, numbered from 1, as
      DAVIS annotates; others are background.
    - ``ImageSets/2017/val.txt``: names of the clips.

    Parameters
    ----------
    folder : path-like
        Is made where it does not exist; files of the same names are written over.
    first, count : int
        Numbers of the clips.
    length, size : int
        Frames of a clip, and side of the frames in pixels, as :func:`tvm_ahcq.clips.generate` takes them.
    """
    root = Path(folder)
    names = []
    for number, clip in enumerate(clips(first, count, length, size)):
        names.append(f"clip_{number:04d}")
        (root / FRAMES / names[-1]).mkdir(parents=True, exist_ok=True)
        labels = first_frame_labels(clip)
        for frame in range(length):
            picture = Image.fromarray(clip.frames[frame])
            picture.save(root / FRAMES / names[-1] / f"{frame:05d}.jpg", quality=95)
            write_palette_png(root / MASKS / names[-1] / f"{frame:05d}.png", labels[frame])
    (root / VIDEO_LIST).parent.mkdir(parents=True, exist_ok=True)
    (root / VIDEO_LIST).write_text("".join(f"{name}\n" for name in names))


def first_frame_labels(clip: Clip) -> np.ndarray:
    """``(length, H, W)`` uint8: what shows of the objects of the first frame, numbered from 1; 0 elsewhere."""
    numbers = np.zeros(256, np.uint8)
    for number, index in enumerate(clip.objects(), 1):
        numbers[index] = number
    return numbers[clip.labels]
