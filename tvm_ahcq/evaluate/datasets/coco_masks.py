"""Masks in COCO's forms (polygons, run lengths) through pycocotools, which is an extra of the package."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvm_ahcq.errors import EvaluationError

Rle = dict[str, Any]
"""Compressed run lengths: ``size`` (H, W), and ``counts`` as bytes."""


def pycocotools() -> Any:
    """The package, with its modules ``mask``, ``coco`` and ``cocoeval`` imported.

    Raises
    ------
    EvaluationError
        It is not installed.
    """
    try:
        import pycocotools
        import pycocotools.coco
        import pycocotools.cocoeval
        import pycocotools.mask
    except ImportError as error:
        raise EvaluationError(
            f"evaluation on COCO files needs pycocotools ({error}); install it with: pip install pycocotools "
            "(or with the package: pip install 'tvm-ahcq[eval]')"
        ) from error
    return pycocotools


def to_rle(segmentation: Any, size: tuple[int, int], owner: str) -> Rle | None:
    """A segmentation in any of COCO's forms as compressed run lengths.

    Parameters
    ----------
    segmentation : list or dict
        Polygons ``[[x, y, x, y, ...], ...]`` in pixels; run lengths by column, ``{"size": [H, W], "counts": [...]}``;
        or the same with counts compressed to a string.
    size : tuple of int
        ``(H, W)`` of the picture.
    owner : str
        Whose it is, for messages.

    Returns
    -------
    Rle or None
        None where there is no segmentation, as in ``[]``.

    Raises
    ------
    EvaluationError
        It is of no such form, or of another size.
    """
    if not segmentation:
        return None
    if isinstance(segmentation, dict):
        return _from_runs(segmentation, size, owner)
    if not isinstance(segmentation, list) or not all(_is_polygon(polygon) for polygon in segmentation):
        raise EvaluationError(
            f"{owner}: its segmentation is neither run lengths nor a list of polygons, each [x, y, x, y, x, y, ...] "
            f"with three points or more; it begins {str(segmentation)[:60]}"
        )
    mask = pycocotools().mask
    return mask.merge(mask.frPyObjects([[float(v) for v in polygon] for polygon in segmentation], *size))


def encode(masks: np.ndarray) -> list[Rle]:
    """Masks ``(B, H, W)`` bool as compressed run lengths."""
    if not len(masks):
        return []
    return pycocotools().mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).astype(np.uint8)))


def area(rle: Rle) -> int:
    """Pixels of a mask."""
    return int(pycocotools().mask.area(rle))


def box_of(rle: Rle) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around a mask, the last two beyond it; all 0 for an empty mask."""
    x, y, width, height = (float(value) for value in pycocotools().mask.toBbox(rle))
    return x, y, x + width, y + height


def rle_iou(a: Rle, b: Rle) -> float:
    """Intersection over union of two masks of one size."""
    return float(pycocotools().mask.iou([a], [b], [0])[0, 0])


def _is_polygon(polygon: Any) -> bool:
    # with four numbers, pycocotools would take it for a box
    return (
        isinstance(polygon, list)
        and len(polygon) >= 6
        and len(polygon) % 2 == 0
        and all(isinstance(value, int | float) and math.isfinite(value) for value in polygon)
    )


def _from_runs(runs: dict[str, Any], size: tuple[int, int], owner: str) -> Rle:
    given, counts = runs.get("size"), runs.get("counts")
    if not isinstance(given, list | tuple) or list(given) != list(size):
        raise EvaluationError(
            f"{owner}: its run lengths have size {given}, its picture {list(size)} (height, width); they must be equal"
        )
    mask = pycocotools().mask
    if isinstance(counts, list) and all(isinstance(run, int) and run >= 0 for run in counts):
        if sum(counts) != size[0] * size[1]:
            raise EvaluationError(
                f"{owner}: its run lengths add up to {sum(counts)}, its picture has {size[0] * size[1]} pixels"
            )
        return mask.frPyObjects({"size": list(size), "counts": counts}, *size)
    if not isinstance(counts, str | bytes):
        raise EvaluationError(f"{owner}: its run lengths have no counts; expected a list of numbers or a string")
    rle = {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}
    try:
        mask.decode(rle)
    except ValueError as error:
        raise EvaluationError(f"{owner}: its compressed run lengths are damaged: {error}") from error
    return rle
