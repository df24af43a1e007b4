"""Execution of a model's functions: sessions, drivers that take a sample through them, and self-checks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np


class Call(NamedTuple):
    """A request of a driver: run a function with these inputs."""

    function: str
    inputs: tuple[Any, ...]


Driver = Generator[Call, Any, None]
"""A calibration sample on its way through the model: yields calls and is sent the outputs of each. An output that is
not used is not asked for; arrays are numpy arrays or torch tensors, whichever executes the calls."""


class SessionLike(Protocol):
    """An executor of a model's functions: compiled, or simulated in torch."""

    @property
    def model(self) -> Any:
        """Figures of the model, of the family's own class."""

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a function by name with its inputs; return its outputs."""


class ImagePredictor(Protocol):
    """Predictor of masks in an image, as evaluation uses it; each family's own has more methods."""

    def set_image(self, image: np.ndarray) -> None:
        """Encode an ``(H, W, 3)`` uint8 RGB image."""

    def predict_clicks(self, clicks: np.ndarray, multimask_output: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return masks ``(B, C, H, W)`` bool and scores ``(B, C)`` of one click an object, ``(B, 2)`` in pixels."""

    def predict_boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return one mask ``(B, 1, H, W)`` and score ``(B, 1)`` for each box ``(B, 4)``, XYXY in pixels."""


class VideoPredictor(Protocol):
    """Predictor of masks through a video, as evaluation uses it, with the calls of ``SAM2VideoPredictor``."""

    def init_state(self, video_path: str) -> Any:
        """Open a folder of frames ``00000.jpg``, ``00001.jpg``, ...; return the state of its tracking."""

    def add_new_mask(self, inference_state: Any, frame_idx: int, obj_id: int, mask: np.ndarray) -> Any:
        """Show an object on a frame by its bool mask ``(H, W)``."""

    def add_new_points_or_box(
        self,
        inference_state: Any,
        frame_idx: int,
        obj_id: int,
        points: Any = None,
        labels: Any = None,
        clear_old_points: bool = True,
        normalize_coords: bool = True,
        box: Any = None,
    ) -> Any:
        """Show an object on a frame by clicks ``(N, 2)`` with labels, or by a box ``(4,)``, in pixels."""

    def propagate_in_video(
        self, inference_state: Any, start_frame_idx: int | None = None
    ) -> Iterator[tuple[int, Sequence[int], np.ndarray]]:
        """Yield frame, ids of the objects and their float32 logits ``(objects, 1, H, W)``, to the last frame."""

    def reset_state(self, inference_state: Any) -> None:
        """Forget all objects."""


def run_driver(driver: Driver, execute: Callable[..., Any]) -> None:
    """Run all calls of a driver; ``execute(function, *inputs)`` returns the output, or a tuple of several."""
    try:
        call = next(driver)
        while True:
            call = driver.send(execute(call.function, *call.inputs))
    except StopIteration:
        return


@dataclass(frozen=True)
class Check:
    """One comparison with a golden output.

    Attributes
    ----------
    what : str
        What was compared, for people.
    value, limit : float
        The value, and the limit it is held against.
    passed : bool
        True if the value is within the limit.
    """

    what: str
    value: float
    limit: float
    passed: bool

    def __str__(self) -> str:
        return f"{self.what} {self.value:.4g} ({'' if self.passed else 'NOT '}within {self.limit:g})"


@dataclass(frozen=True)
class GoldenCheck:
    """Self-check of a bundle.

    Attributes
    ----------
    make : callable
        ``make(session) -> arrays``: inputs, and what a reference session makes of them, by name.
    compare : callable
        ``compare(session, arrays) -> checks``: the same on another session, compared.
    """

    make: Callable[[SessionLike], dict[str, np.ndarray]]
    compare: Callable[[SessionLike, Mapping[str, np.ndarray]], tuple[Check, ...]]
