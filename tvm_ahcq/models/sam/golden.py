"""The self-check of a SAM bundle: a golden image with prompts, and its embedding, masks and scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.execution import Check, SessionLike
from tvm_ahcq.scenes import generate

from .driver import calibration_prompts
from .functions import SamFunctions
from .image import ResizeLongestSide, check_image, prepare

GOLDEN_SCENE = 20_000_000
"""Number of the generated scene in the self-check of every bundle."""

EMBEDDING_TOLERANCE = 0.02
"""Relative L2 error of the embedding. Integers agree exactly; float arithmetic may move some codes by one."""

MASK_TOLERANCE = 0.99
"""Least IoU of a mask with its golden one."""

SCORE_TOLERANCE = 0.02
"""Largest difference of a predicted IoU."""


_SIDE = 8
"""Rows and columns of the embedding that a golden pair keeps at least: an even choice of pixels, with all channels."""


def make_golden(session: SessionLike) -> dict[str, np.ndarray]:
    """Return the golden pair of the generated scene, with two clicks and two boxes."""
    coords, labels = calibration_prompts(session.model.image_size, seed=0)
    return golden_pair(session, generate(GOLDEN_SCENE).image, coords[4:8], labels[4:8])


def golden_pair(
    session: SessionLike, image: np.ndarray, point_coords: np.ndarray, point_labels: np.ndarray
) -> dict[str, np.ndarray]:
    """Make the golden pair by running a reference of the same model.

    Parameters
    ----------
    session : SessionLike
        Executes the reference.
    image : numpy.ndarray
        ``(H, W, 3)`` uint8 RGB; kept at its own size or the model's, whichever is smaller.
    point_coords : numpy.ndarray
        ``(B, N, 2)`` float32 tokens in the model's frame, padding included.
    point_labels : numpy.ndarray
        ``(B, N)`` float32.

    Returns
    -------
    dict of str to numpy.ndarray
        For ``write_bundle``; of the embedding, some pixels are kept as float16, masks as booleans.
    """
    side, small = session.model.image_size, check_image(image)
    if max(small.shape[:2]) > side:
        small = ResizeLongestSide(side).apply_image(small)
    inputs = {
        "image": small,
        "point_coords": np.asarray(point_coords, np.float32),
        "point_labels": np.asarray(point_labels, np.float32),
    }
    return inputs | golden_results(session.model.mask_threshold, *_run(session, small, point_coords, point_labels))


def golden_results(
    threshold: float, embedding: np.ndarray, masks: np.ndarray, iou: np.ndarray
) -> dict[str, np.ndarray]:
    """Return what a golden pair keeps of results: some pixels of the embedding as float16, and masks as booleans."""
    return {
        "embedding": _pixels(embedding, _kept_side(embedding.shape[-1])).astype(np.float16),
        "masks": masks > threshold,
        "iou": iou,
    }


def compare(session: SessionLike, golden: Mapping[str, np.ndarray]) -> tuple[Check, ...]:
    """Run a golden pair on any executor, image to embedding to masks, each from the result before.

    Returns
    -------
    tuple of Check
        Relative L2 error of the embedding, lowest IoU of a mask, largest difference of a score.
    """
    results = _run(session, golden["image"], golden["point_coords"], golden["point_labels"])
    return compare_results(session.model.mask_threshold, golden, *results)


def compare_results(
    threshold: float, golden: Mapping[str, np.ndarray], embedding: np.ndarray, masks: np.ndarray, iou: np.ndarray
) -> tuple[Check, ...]:
    """Compare results with those of a golden pair; see :func:`compare`."""
    expected = golden["embedding"].astype(np.float32)
    kept = _pixels(embedding, expected.shape[-1])
    error = float(np.linalg.norm(kept - expected)) / max(float(np.linalg.norm(expected)), 1e-30)
    found, wanted = masks > threshold, golden["masks"]
    union = (found | wanted).sum(axis=(-2, -1))
    overlap = (found & wanted).sum(axis=(-2, -1))
    lowest = float(np.where(union == 0, 1.0, overlap / np.maximum(union, 1)).min())
    difference = float(np.abs(iou - golden["iou"]).max())
    # written so that NaN does not pass
    return (
        Check("embedding, relative error", error, EMBEDDING_TOLERANCE, error <= EMBEDDING_TOLERANCE),
        Check("masks, lowest IoU", lowest, MASK_TOLERANCE, lowest >= MASK_TOLERANCE),
        Check("scores, largest difference", difference, SCORE_TOLERANCE, difference <= SCORE_TOLERANCE),
    )


def _kept_side(grid: int) -> int:
    """The least divisor of `grid` from ``_SIDE`` on; `grid` itself where it is smaller."""
    return next((side for side in range(_SIDE, grid) if grid % side == 0), grid)


def _pixels(embedding: np.ndarray, side: int) -> np.ndarray:
    """`side` x `side` of the pixels of an embedding ``(1, C, h, w)``: those in the middle of squares of it."""
    step = max(1, embedding.shape[-1] // side)
    return embedding[..., step // 2 :: step, step // 2 :: step]


def _run(
    session: SessionLike, image: np.ndarray, coords: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    functions = SamFunctions(session)
    embedding = functions.encode(prepare(session.model, image))
    masks, iou = functions.decode(embedding, coords, labels)
    return embedding, masks, iou
