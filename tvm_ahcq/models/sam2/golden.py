"""The self-check of a SAM 2 bundle: a generated image with prompts, and its embedding, masks and scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.execution import Check, SessionLike
from tvm_ahcq.models.sam.golden import GOLDEN_SCENE, compare_results, golden_results
from tvm_ahcq.scenes import generate

from .driver import sample_prompts
from .functions import Sam2Functions
from .image import prepare


def make_golden(session: SessionLike) -> dict[str, np.ndarray]:
    """Return what a reference makes of the generated scene, with two clicks and two boxes."""
    coords, labels = (values[4:8] for values in sample_prompts(session.model.image_size, seed=0))
    inputs = {"image": generate(GOLDEN_SCENE).image, "point_coords": coords, "point_labels": labels}
    return inputs | golden_results(session.model.mask_threshold, *_run(session, inputs))


def compare(session: SessionLike, golden: Mapping[str, np.ndarray]) -> tuple[Check, ...]:
    """Run the golden image on any executor; compare embedding, masks and scores."""
    return compare_results(session.model.mask_threshold, golden, *_run(session, golden))


def _run(session: SessionLike, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    functions = Sam2Functions(session)
    features = functions.encode(prepare(session.model, inputs["image"]))
    decoded = functions.decode(features, inputs["point_coords"], inputs["point_labels"])
    return features.embedding, decoded.masks, decoded.iou
