"""Generated scenes as files in the forms that people's own data has: masks in a folder, and COCO instances.

They have what real sets have: polygons and run lengths, parts that lie on wholes, crowds, category numbers with gaps, a
picture on which nothing is annotated, and a detector that misplaces boxes and sees things.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.ndimage import binary_fill_holes
from skimage.measure import approximate_polygon, find_contours

from tvm_ahcq.evaluate.datasets.object_prompts import tight_box
from tvm_ahcq.scenes import Scene, generate

IMAGES, MASKS, INSTANCES, DETECTIONS = "images", "masks", "instances.json", "detections.json"
"""Files that :func:`write_scenes` writes."""

WHOLE, PART = 1, 3
"""Category numbers."""

CROWDED = 6
"""From this many whole objects on, the last third of a picture's is annotated as one crowd."""

_POLYGON_TOLERANCE = 0.4
"""Furthest that a polygon may be from the outline it stands for, in pixels."""


def write_scenes(folder: str | os.PathLike[str], first: int, count: int) -> None:
    """Write the scenes ``first .. first + count - 1``, and a picture without objects, as a data set.

    - ``images/``: the pictures, PNG.
    - ``masks/``: label images of the whole objects, PNG: 0 for background.
    - ``instances.json``: a COCO instance file of wholes and parts.
    - ``detections.json``: what an imperfect detector finds, in COCO's result format.

    Parameters
    ----------
    folder : path-like
        Is made where it does not exist; files of the same names are written over.
    first, count : int
        Numbers of the scenes.
    """
    folder = Path(folder)
    for name in (IMAGES, MASKS):
        (folder / name).mkdir(parents=True, exist_ok=True)
    images, annotations, detections = [], [], []
    for number, scene in enumerate([*(generate(seed) for seed in range(first, first + count)), _empty(first)]):
        name = f"{number:06d}.png"
        Image.fromarray(scene.image).save(folder / IMAGES / name)
        Image.fromarray(_whole_labels(scene)).save(folder / MASKS / name)
        height, width = scene.labels.shape
        images.append({"id": 1000 + number, "file_name": name, "height": height, "width": width})
        found = _annotations(scene, 1000 + number)
        annotations += found
        detections += _detections(np.random.default_rng([0xDE7, first + number]), found, scene.labels.shape)
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    categories = [{"id": WHOLE, "name": "whole"}, {"id": PART, "name": "part"}]
    instances = {"images": images, "annotations": annotations, "categories": categories}
    (folder / INSTANCES).write_text(json.dumps(instances))
    (folder / DETECTIONS).write_text(json.dumps(detections))


def _empty(seed: int) -> Scene:
    """A grey ramp with some noise, and nothing on it."""
    size = 256
    noise = np.random.default_rng([0xE, seed]).normal(0, 4, (size, size, 1))
    ramp = np.linspace(90, 150, size)[None, :, None]
    image = np.clip(ramp + noise, 0, 255).astype(np.uint8)
    return Scene(np.repeat(image, 3, axis=2), np.zeros((size, size), np.uint8), np.zeros(1, np.uint8))


def _wholes(scene: Scene) -> list[int]:
    return [index for index in scene.objects() if scene.parents[index] == 0]


def _whole_labels(scene: Scene) -> np.ndarray:
    """``(H, W)`` uint8: each whole object, its parts included, by its number."""
    labels = np.zeros(scene.labels.shape, np.uint8)
    for index in _wholes(scene):
        labels[scene.mask(index)] = index
    return labels


def _annotations(scene: Scene, image_id: int) -> list[dict[str, Any]]:
    """COCO annotations of one scene, without their numbers."""
    wholes = _wholes(scene)
    crowd = wholes[-(len(wholes) // 3) :] if len(wholes) >= CROWDED else []
    annotations = []
    for index in scene.objects():
        parent = int(scene.parents[index])
        if index in crowd or parent in crowd:
            continue
        category = PART if parent else WHOLE
        annotations.append(_annotation(scene.mask(index), image_id, category, crowd=False))
    if crowd:
        mask = np.logical_or.reduce([scene.mask(index) for index in crowd])
        annotations.append(_annotation(mask, image_id, WHOLE, crowd=True))
    return annotations


def _annotation(mask: np.ndarray, image_id: int, category: int, crowd: bool) -> dict[str, Any]:
    x0, y0, x1, y1 = tight_box(mask)
    # a polygon knows no holes
    runs = crowd or (binary_fill_holes(mask) != mask).any()
    return {
        "image_id": image_id,
        "category_id": category,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": int(mask.sum()),
        "iscrowd": int(crowd),
        "segmentation": run_lengths(mask) if runs else polygons(mask),
    }


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """A mask ``(H, W)`` as COCO's run lengths, not compressed: column by column, background first."""
    pixels = mask.ravel(order="F")
    changes = np.flatnonzero(np.diff(pixels, prepend=False, append=not pixels[-1]))
    return {"size": list(mask.shape), "counts": np.diff(changes, prepend=0).tolist()}


def polygons(mask: np.ndarray) -> list[list[float]]:
    """The outlines of a mask ``(H, W)`` without holes as COCO's polygons: x and y in turn, in pixels."""
    outlines = []
    for contour in find_contours(np.pad(mask, 1).astype(float), 0.5):
        corners = approximate_polygon(contour, _POLYGON_TOLERANCE)[:-1]
        # the middle of the first pixel lies at 0.5, and the padding moved it to 1
        points = corners[:, ::-1] - 0.5
        if len(points) >= 3:
            outlines.append(np.round(points, 2).ravel().tolist())
    return outlines


def _detections(
    rng: np.random.Generator, annotations: list[dict[str, Any]], size: tuple[int, ...]
) -> list[dict[str, Any]]:
    """Misplaced boxes of nine objects in ten with high scores, and now and then one of nothing with a low score."""
    found = []
    for annotation in annotations:
        if annotation["iscrowd"] or rng.random() < 0.1:
            continue
        x, y, width, height = annotation["bbox"]
        shift, stretch = rng.normal(0, 0.04, 2), np.exp(rng.normal(0, 0.06, 2))
        box = [x + shift[0] * width, y + shift[1] * height, width * stretch[0], height * stretch[1]]
        found.append((box, annotation["category_id"], rng.uniform(0.5, 1.0)))
    if annotations and rng.random() < 0.5:
        side = rng.uniform(15, 80)
        x, y = rng.uniform(0, np.array(size[::-1]) - side)
        found.append(([x, y, side, side], WHOLE, rng.uniform(0.05, 0.6)))
    image = [annotation["image_id"] for annotation in annotations[:1]]
    return [
        {
            "image_id": image[0],
            "category_id": category,
            "bbox": [round(float(v), 2) for v in box],
            "score": round(float(score), 4),
        }
        for box, category, score in found
    ]
