"""COCO-format files: annotated objects of pictures, and boxes that a detector found in them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from tvm_ahcq.errors import EvaluationError

from .coco_masks import Rle, area, box_of, pycocotools, to_rle
from .pictures import extent, picture_sizes

Box = tuple[float, float, float, float]
"""x0, y0, x1, y1 in pixels."""

Id = int | str


@dataclass(frozen=True)
class CocoImage:
    """A picture: its number in the file, where it lies, and its ``(H, W)``."""

    id: Id
    path: Path
    size: tuple[int, int]


@dataclass(frozen=True)
class CocoObject:
    """An annotated object.

    Attributes
    ----------
    image, category : int or str
        Numbers of its picture and of its category in the file.
    box : tuple of float
        x0, y0, x1, y1 within the picture; that of the mask where the file has none.
    mask : Rle
        Compressed run lengths.
    area : float
        As the file says, which decides between small, medium and large; pixels of the mask where it says nothing.
    crowd : bool
        A region of many objects: not prompted, and what a detector finds in it does not count.
    """

    image: Id
    category: Id
    box: Box
    mask: Rle
    area: float
    crowd: bool


@dataclass(frozen=True)
class CocoSet:
    """A COCO instance file with its pictures.

    Attributes
    ----------
    name : str
        Of the file.
    images : tuple of CocoImage
        Those to evaluate on.
    objects : tuple of CocoObject
        All of these images', crowds included.
    categories : dict of int or str to str
        Names by number.
    image_ids : frozenset
        Numbers of all images in the file, also of those left out by a limit.
    unmasked : int
        Annotations without a mask. There is nothing to compare with, so their box is kept as a crowd.
    """

    name: str
    images: tuple[CocoImage, ...]
    objects: tuple[CocoObject, ...]
    categories: dict[Id, str]
    image_ids: frozenset[Id]
    unmasked: int = 0


@dataclass(frozen=True)
class Detection:
    """Detection: numbers of picture and category, x0, y0, x1, y1 within the picture, and its score."""

    image: Id
    category: Id
    box: Box
    score: float


def read_coco(path: str | os.PathLike[str], images: str | os.PathLike[str], limit: int | None = None) -> CocoSet:
    """Read a COCO instance file.

    Parameters
    ----------
    path : path-like
        JSON with "images", "annotations" and "categories".
    images : path-like
        Folder that the "file_name" of an image is relative to.
    limit : int, optional
        Take that many images at most, the first in the file.

    Returns
    -------
    CocoSet

    Raises
    ------
    EvaluationError
        The file is not such a file, a picture is missing or has another size than the file says, an annotation names
        an unknown picture or category, or there is no object to prompt.
    """
    pycocotools()  # said at once, not after the file has been read
    content = _read_json(Path(path))
    if not isinstance(content, dict) or not {"images", "annotations", "categories"} <= set(content):
        found = f"the keys {sorted(content)[:8]}" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise EvaluationError(
            f"{path}: not a COCO instance file: it holds {found}; expected an object with images, annotations and "
            "categories (a detector's results go in as detections)"
        )
    categories = {
        _value(path, "category", n, entry, "id"): str(entry.get("name", entry["id"]))
        for n, entry in _entries(path, "categories", content)
    }
    listed = list(_entries(path, "images", content))
    image_ids = frozenset(_value(path, "image", n, entry, "id") for n, entry in listed)
    if len(image_ids) != len(listed):
        raise EvaluationError(f"{path}: two of its {len(listed)} images have the same id")
    chosen = tuple(_image(path, Path(images), n, entry) for n, entry in listed[:limit])
    objects, unmasked = _objects(path, content, {image.id: image.size for image in chosen}, image_ids, categories)
    if all(each.crowd for each in objects):
        raise EvaluationError(f"{path}: none of its {len(chosen)} images has an object with a mask; nothing to compare")
    return CocoSet(Path(path).name, chosen, objects, categories, image_ids, unmasked)


def read_detections(path: str | os.PathLike[str], coco: CocoSet) -> tuple[Detection, ...]:
    """Read a detector's results: ``[{"image_id", "category_id", "bbox": [x, y, width, height], "score"}, ...]``.

    Parameters
    ----------
    path : path-like
        JSON in COCO's result format.
    coco : CocoSet
        What the detector ran on.

    Returns
    -------
    tuple of Detection
        Those in the images of `coco`, in the order of the file; boxes are cut at the picture's edges.

    Raises
    ------
    EvaluationError
        The file is not such a file, or names an unknown picture or category.
    """
    content = _read_json(Path(path))
    if not isinstance(content, list):
        raise EvaluationError(
            f"{path}: not a detector's results in COCO format: it holds a {type(content).__name__}; expected a list "
            "of {image_id, category_id, bbox, score}"
        )
    sizes = {image.id: image.size for image in coco.images}
    unknown_category = (
        f"is not in {coco.name}, which has {', '.join(map(str, list(coco.categories)[:5]))}, ...; "
        "a detector that numbers its classes from 0 needs them mapped to these"
    )
    detections = []
    for n, entry in enumerate(content):
        if not isinstance(entry, dict):
            raise EvaluationError(f"{path}: detection {n} is a {type(entry).__name__}; expected an object")
        image = _known(path, "detection", n, entry, "image_id", coco.image_ids, f"is not in {coco.name}")
        category = _known(path, "detection", n, entry, "category_id", coco.categories, unknown_category)
        box = _box(f"{path}: detection {n}", _value(path, "detection", n, entry, "bbox"))
        score = _value(path, "detection", n, entry, "score")
        if not _is_number(score):
            raise EvaluationError(f"{path}: detection {n} has score {score!r}; expected a finite number")
        if image in sizes:
            detections.append(Detection(image, category, _cut(box, sizes[image]), float(score)))
    return tuple(detections)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise EvaluationError(f"{path}: no such file") from error
    except OSError as error:
        raise EvaluationError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path}: not JSON: {error}") from error


def _entries(path: Any, key: str, content: Mapping[str, Any]) -> list[tuple[int, dict[str, Any]]]:
    """Numbered entries of a list in the file."""
    entries = content[key]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise EvaluationError(f"{path}: its {key} are not a list of objects")
    return list(enumerate(entries))


def _value(path: Any, kind: str, number: int, entry: Mapping[str, Any], key: str) -> Any:
    if key not in entry:
        raise EvaluationError(f"{path}: {kind} {number} has no {key}; it has {sorted(entry)}")
    value = entry[key]
    if not key.endswith("id"):
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)  # as programs write it that keep everything in one float array
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise EvaluationError(f"{path}: {kind} {number} has {key} {value!r}; expected a whole number")
    return value


def _known(
    path: Any,
    kind: str,
    number: int,
    entry: Mapping[str, Any],
    key: str,
    known: Any,
    complaint: str = "is not in the file",
) -> Id:
    value = _value(path, kind, number, entry, key)
    if value not in known:
        raise EvaluationError(f"{path}: {kind} {number} has {key} {value!r}, which {complaint}")
    return value


def _image(path: Any, folder: Path, number: int, entry: Mapping[str, Any]) -> CocoImage:
    name = _value(path, "image", number, entry, "file_name")
    if not isinstance(name, str):
        raise EvaluationError(f"{path}: image {number} has file_name {name!r}; expected text")
    upright, stored = picture_sizes(folder / name)
    size = (entry.get("height", upright[0]), entry.get("width", upright[1]))
    if size not in (upright, stored):
        raise EvaluationError(
            f"{folder / name} is {extent(upright)} pixels, {path} says {extent(size)} (width x height); its "
            "annotations would not fit it: use the pictures that were annotated"
        )
    return CocoImage(_value(path, "image", number, entry, "id"), folder / name, upright if size == upright else stored)


def _objects(
    path: Any,
    content: Mapping[str, Any],
    sizes: Mapping[Id, tuple[int, int]],
    image_ids: Collection[Id],
    categories: Collection[Id],
) -> tuple[tuple[CocoObject, ...], int]:
    """Objects in the images that have a size here, and how many of their annotations have no mask."""
    objects, unmasked = [], 0
    for n, entry in _entries(path, "annotations", content):
        image = _known(path, "annotation", n, entry, "image_id", image_ids)
        category = _known(path, "annotation", n, entry, "category_id", categories)
        if image not in sizes:
            continue
        owner = f"{path}: annotation {n} (id {entry.get('id')})"
        found, masked = _object(owner, image, category, entry, sizes[image])
        unmasked += not masked
        objects += [] if found is None else [found]
    return tuple(objects), unmasked


def _object(
    owner: str, image: Id, category: Id, entry: Mapping[str, Any], size: tuple[int, int]
) -> tuple[CocoObject | None, bool]:
    """The annotated object, None if it has neither mask nor box; and whether it has a mask."""
    mask = to_rle(entry.get("segmentation"), size, owner)
    box = _cut(_box(owner, entry["bbox"]), size) if entry.get("bbox") else (0.0, 0.0, 0.0, 0.0)
    crowd, has_mask = bool(entry.get("iscrowd", 0)), mask is not None
    if mask is None and not _is_empty(box):
        x0, y0, x1, y1 = box
        mask, crowd = to_rle([[x0, y0, x1, y0, x1, y1, x0, y1]], size, owner), True
    if mask is not None and _is_empty(box):
        box = box_of(mask)
    if mask is None or _is_empty(box):
        return None, has_mask
    stated = entry.get("area")
    pixels = float(stated) if _is_number(stated) else float(area(mask))
    return CocoObject(image, category, box, mask, pixels, crowd), has_mask


def _box(owner: str, box: Any) -> Box:
    """x, y, width, height of the file to x0, y0, x1, y1."""
    if not isinstance(box, list) or len(box) != 4 or not all(_is_number(value) for value in box):
        raise EvaluationError(f"{owner} has bbox {box!r}; expected [x, y, width, height] in pixels")
    x, y, width, height = (float(value) for value in box)
    return x, y, x + width, y + height


def _cut(box: Box, size: tuple[int, int]) -> Box:
    height, width = (float(length) for length in size)
    x0, x1 = (min(max(x, 0.0), width) for x in box[::2])
    y0, y1 = (min(max(y, 0.0), height) for y in box[1::2])
    return x0, y0, x1, y1


def _is_empty(box: Box) -> bool:
    return not (box[0] < box[2] and box[1] < box[3])


def _is_number(value: Any) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
