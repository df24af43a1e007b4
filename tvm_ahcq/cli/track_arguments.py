"""Prompts and outputs of ``tvm-ahcq track`` as they are typed."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .arguments import UsageError, box, input_file, new_folder, output_file, point

FORMATS = ("png", "coco")
"""Of masks."""

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv")
"""Of outputs that are video files; every other output is a folder."""

_READERS: dict[str, Callable[[str], Any]] = {"point": point, "box": box, "mask": input_file}


@dataclass(frozen=True)
class Prompt:
    """One prompt of the command line.

    Attributes
    ----------
    kind : str
        ``"point"``, ``"box"`` or ``"mask"``.
    value : object
        x, y and label; four corners; or the path of a picture.
    frame : int
        Number of the frame.
    object : int
        Number of the object, from 1.
    """

    kind: str
    value: Any
    frame: int
    object: int


class AddPrompt(argparse.Action):
    """Appends a prompt to ``prompts``, for the object that is being described."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Read ``VALUE`` or ``VALUE@FRAME``."""
        text, at, number = str(values).rpartition("@")
        frame = int(number) if at and number.isdecimal() else 0
        if not (at and number.isdecimal()):
            text = str(values)
        try:
            value = _READERS[self.dest](text)
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from error
        current = getattr(namespace, "current_object", 1)
        namespace.prompts = [*namespace.prompts, Prompt(self.dest, value, frame, current)]


class NextObject(argparse.Action):
    """Starts the next object; the first one needs no start."""

    def __init__(self, option_strings: list[str], dest: str, **options: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Count on, if the object that is being described has a prompt."""
        known = {prompt.object for prompt in namespace.prompts}
        namespace.current_object = len(known) + 1


def track_output(text: str) -> Path:
    """A video file or a folder that can be written."""
    return output_file(text) if Path(text).suffix.lower() in VIDEO_SUFFIXES else _folder(text)


def mask_output(path: Path, form: str) -> Path:
    """Return where masks go; UsageError if it cannot be written."""
    try:
        return _folder(str(path)) if form == FORMATS[0] else output_file(str(path))
    except argparse.ArgumentTypeError as error:
        raise UsageError(f"track: argument --masks-out: {error}") from error


def _folder(text: str) -> Path:
    path = Path(text)
    if path.suffix and not path.is_dir():
        raise argparse.ArgumentTypeError(
            f"{text} looks like a file, expected a folder; videos end in {', '.join(VIDEO_SUFFIXES)}, and masks in one "
            "file need --format coco"
        )
    return new_folder(text)
