"""Task of a comparison: one model, one picture with a click, some threads; stored as files for every process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.models.description import DECODE, ENCODE, ModelSpec
from tvm_ahcq.models.registry import find_family, timing_of

STAGES = ("encode", "decode", "whole")
"""The image encoder; prompt encoder and mask decoder of one click; ``set_image`` and ``predict`` of a predictor."""

VIDEO_STAGES = ("memory", "frame", "frame8")
"""Of a model that tracks: memory attention with all memories; a frame of one object, from pixels to its memory; a frame
of eight objects."""

EMBEDDING = "embedding.npy"
"""In the folder of a peer: what its encoder made of the image."""

_FILE, _INPUTS = "task.json", "inputs.npz"


@dataclass(frozen=True)
class Task:
    """A comparison.

    Attributes
    ----------
    model : ModelSpec
        Figures of the model.
    bundle : Path
        The model, compiled by tvm-ahcq.
    checkpoint : Path or None
        Its float weights; None for the model that comes with the package.
    folder : Path
        Folder where peers cache the files that they derive from the weights.
    threads : int
        Threads of each runtime.
    target : str or None
        Which target of the bundle to run; None for the best.
    """

    model: ModelSpec
    bundle: Path
    checkpoint: Path | None
    folder: Path
    threads: int
    target: str | None = None

    def peer_folder(self, name: str) -> Path:
        """Folder of what a peer, or a step that peers share, makes of the weights."""
        return self.folder / "".join(letter if letter.isalnum() else "-" for letter in name)


def stages_of(model: ModelSpec) -> tuple[str, ...]:
    """Return what is timed of a model."""
    return (*STAGES, *VIDEO_STAGES) if model.tracks else STAGES


def functions_of(model: ModelSpec) -> tuple[str, ...]:
    """Return the names of the functions that runtimes compare: the one that encodes, the one that decodes, and those
    that track."""
    family = find_family(model.family)
    tracking = timing_of(model).tracking if model.tracks else ()
    return family.function_name(ENCODE), family.function_name(DECODE), *tracking


def write_task(task: Task, image: np.ndarray, click: tuple[float, float]) -> None:
    """Put a task and its inputs into its folder.

    Parameters
    ----------
    task : Task
        What to measure.
    image : numpy.ndarray
        ``(H, W, 3)`` uint8 RGB.
    click : tuple of float
        x and y in pixels of the image.
    """
    task.folder.mkdir(parents=True, exist_ok=True)
    np.savez(task.folder / _INPUTS, image=image, click=np.array(click, np.float64))
    stored = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(task).items()}
    stored["model"] = task.model.to_dict()
    (task.folder / _FILE).write_text(json.dumps(stored), encoding="utf-8")


def read_task(folder: Path) -> tuple[Task, np.ndarray, np.ndarray]:
    """Inverse of :func:`write_task`: the task, its image, and its click ``(2,)``."""
    stored: dict[str, Any] = json.loads((folder / _FILE).read_text(encoding="utf-8"))
    model = stored.pop("model")
    checkpoint = stored.pop("checkpoint")
    task = Task(
        model=find_family(model["family"]).spec.from_dict(model),
        bundle=Path(stored.pop("bundle")),
        checkpoint=None if checkpoint is None else Path(checkpoint),
        folder=Path(stored.pop("folder")),
        **stored,
    )
    with np.load(folder / _INPUTS) as inputs:
        return task, inputs["image"], inputs["click"]


def plain(value: np.ndarray) -> np.ndarray:
    """Return an input in the type that float models take: float32, indices as they are."""
    return value if np.issubdtype(np.asarray(value).dtype, np.integer) else np.asarray(value, np.float32)
