"""A segmenter whose answers are known, and data sets for it: rectangles of one colour each; clips as video sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.clips import generate
from tvm_ahcq.evaluate.datasets.clip_files import first_frame_labels
from tvm_ahcq.evaluate.datasets.video_folders import LAYOUTS
from tvm_ahcq.models.sam.predictor import SamPredictor
from tvm_ahcq.models.sam.spec import SamSpec

SIDE = 128
Rectangle = tuple[int, int, int, int]
"""x0, y0, x1, y1; multiples of 4, so that a mask at a quarter of the size holds it exactly."""


class ColourSession:
    """Segments by colour: what has the colour of the click, or of the box's middle and lies in the box.

    Of its four masks the first and the third are right; the third has the best predicted IoU. `keep` is the share of
    a rectangle's rows that it finds.
    """

    model = SamSpec("colour", SIDE, SIDE // 16, 3, 0.0, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

    def __init__(self, keep: float = 1.0) -> None:
        self.keep, self.encoded = keep, 0

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """The function of a SAM that is called `name`."""
        return (self.encode(*inputs),) if name == "encode_image" else self.decode(*inputs)

    def encode(self, image: np.ndarray) -> np.ndarray:
        """The picture itself at a quarter of its size."""
        self.encoded += 1
        return image[:, :, 2::4, 2::4]

    def decode(
        self, embedding: np.ndarray, coords: np.ndarray, labels: np.ndarray, mask_input: np.ndarray | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Logits of 1.6 and -1: enlarged four times, they change sign on multiples of 4 pixels, at corners too."""
        masks = np.stack([self._mask(embedding[0], *each) for each in zip(coords, labels, strict=True)])
        low = np.stack([masks, ~masks, masks, ~masks], axis=1)
        scores = np.tile([0.8, 0.1, 0.9, 0.2], (len(masks), 1)).astype(np.float32)
        return np.where(low, 1.6, -1).astype(np.float32), scores

    def _mask(self, picture: np.ndarray, coords: np.ndarray, labels: np.ndarray) -> np.ndarray:
        inside = np.ones(picture.shape[1:], bool)
        x, y = coords[0]
        if 2 in labels:
            (x0, y0), (x1, y1) = coords[labels >= 2] / 4
            rows, columns = np.ogrid[: len(inside), : len(inside)]
            inside = (rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1)
            x, y = coords.mean(0)
        mask = inside & (picture == picture[:, int(y) // 4, int(x) // 4][:, None, None]).all(0)
        rows = np.flatnonzero(mask.any(1))
        mask[rows[round(len(rows) * self.keep) :]] = False
        return mask


@pytest.fixture
def colour_predictor() -> Callable[..., SamPredictor]:
    """Makes a predictor that finds the share `keep` of each rectangle."""
    return lambda keep=1.0: SamPredictor(ColourSession(keep))


def paint(rectangles: list[Rectangle], size: tuple[int, int] = (SIDE, SIDE)) -> tuple[np.ndarray, np.ndarray]:
    """Picture ``(H, W, 3)`` with these rectangles, each of its own colour, and their labels ``(H, W)`` from 1."""
    image, labels = np.full((*size, 3), 7, np.uint8), np.zeros(size, np.uint8)
    for number, (x0, y0, x1, y1) in enumerate(rectangles, 1):
        image[y0:y1, x0:x1] = (40 + 20 * number, 200 - 20 * number, 90)
        labels[y0:y1, x0:x1] = number
    return image, labels


RECTANGLES: list[list[Rectangle]] = [
    [(8, 8, 80, 80), (84, 20, 116, 92)],
    [(20, 40, 100, 112)],
    [],
]
"""Of three pictures; all tall enough that 18 equal steps fit."""


@pytest.fixture
def mask_set(tmp_path: Path) -> Path:
    """Folder with ``images`` and ``masks`` of :data:`RECTANGLES`."""
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    for number, rectangles in enumerate(RECTANGLES):
        image, labels = paint(rectangles)
        Image.fromarray(image).save(tmp_path / "images" / f"{number}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{number}.png")
    return tmp_path


def polygon(rectangle: Rectangle) -> list[list[int]]:
    """A rectangle as COCO's polygon."""
    x0, y0, x1, y1 = rectangle
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


@pytest.fixture
def coco_content(mask_set: Path) -> dict[str, Any]:
    """A COCO instance file of the same pictures; ids as awkward as they come: images from 7, annotations from 0."""
    annotations = [
        {
            "id": 0,
            "image_id": 7 + number,
            "category_id": category,
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "segmentation": polygon((x0, y0, x1, y1)),
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
        }
        for number, rectangles in enumerate(RECTANGLES)
        for (x0, y0, x1, y1), category in zip(rectangles, (5, 90), strict=False)
    ]
    for number, annotation in enumerate(annotations):
        annotation["id"] = number
    images = [
        {"id": 7 + number, "file_name": f"{number}.png", "height": SIDE, "width": SIDE}
        for number in range(len(RECTANGLES))
    ]
    return {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 90, "name": "tall"}, {"id": 5, "name": "square"}],
    }


@pytest.fixture
def write_json(tmp_path: Path) -> Callable[[Any, str], Path]:
    """Function that writes content to a JSON file."""

    def write(content: Any, name: str = "instances.json") -> Path:
        (tmp_path / name).write_text(json.dumps(content))
        return tmp_path / name

    return write


HEIGHT, WIDTH, LENGTH = 112, 128, 9
"""Of the clips in video sets."""


def write_video(root: Path, dataset: str, name: str, frames: np.ndarray, masks: dict[int, np.ndarray]) -> None:
    """Write frames ``(T, H, W, 3)`` and bool masks ``(T, H, W)`` by number as a data set lays them out.

    In a shared PNG the lowest number wins; SA-V is annotated on every fourth frame, in values of 255.
    """
    layout = LAYOUTS[dataset]
    pictures, annotations = (root / folder / name for folder in layout.folders[0])
    pictures.mkdir(parents=True)
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(pictures / f"{index:05d}.jpg", quality=95)
        labels = np.zeros(frame.shape[:2], np.uint8)
        for number in sorted(masks, reverse=True):
            labels[masks[number][index]] = number
        if layout.per_object and index % 4 == 0:
            for number, mask in masks.items():
                save(annotations / f"{number:03d}" / f"{index:05d}.png", mask[index] * np.uint8(255))
        elif not layout.per_object:
            save(annotations / f"{index:05d}.png", labels)


def save(path: Path, labels: np.ndarray) -> None:
    """Write a PNG; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(labels).save(path)


def clip(seed: int, length: int = LENGTH) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Frames of a clip that is wider than high, and masks by number, of the objects of its first frame."""
    made = generate(seed, length, WIDTH)
    labels = first_frame_labels(made)[:, :HEIGHT]
    numbers = range(1, int(labels[0].max()) + 1)
    return made.frames[:, :HEIGHT], {number: labels == number for number in numbers if (labels[0] == number).any()}


@pytest.fixture
def video_set(tmp_path: Path) -> Callable[[str], Path]:
    """Function of a data set's name that writes two clips in its layout; in SA-V their masks overlap."""

    def write(dataset: str) -> Path:
        root = tmp_path / dataset
        for name, seed in (("walk", 3), ("run", 5)):
            frames, masks = clip(seed, 21 if dataset == "sav" else LENGTH)
            if dataset == "sav":
                masks[min(masks)] = np.logical_or.reduce(list(masks.values()))
            write_video(root, dataset, name, frames, masks)
        if LAYOUTS[dataset].lists:
            listing = root / LAYOUTS[dataset].lists[0]
            listing.parent.mkdir(parents=True, exist_ok=True)
            listing.write_text("walk\nrun\n")
        return root

    return write


@pytest.fixture
def add_video() -> Callable[..., None]:
    """The function :func:`write_video`."""
    return write_video


@pytest.fixture
def clip_masks() -> Callable[..., tuple[np.ndarray, dict[int, np.ndarray]]]:
    """The function :func:`clip`."""
    return clip
