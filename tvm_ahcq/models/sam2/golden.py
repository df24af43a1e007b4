"""The self-check of a SAM 2 bundle: a generated image with prompts, and its embedding, masks and scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from tvm_ahcq.models.execution import Check, SessionLike
from tvm_ahcq.models.sam.golden import GOLDEN_SCENE, compare_results, golden_results
from tvm_ahcq.scenes import generate

from .driver import PADDING_POINT, sample_prompts, with_padding
from .functions import Sam2Functions
from .image import prepare
from .masks import enlarge, memory_input

_NO_POINT = np.full((1, 1), PADDING_POINT)


def make_golden(session: SessionLike) -> dict[str, np.ndarray]:
    """Return what a reference makes of the generated scene, with two clicks and two boxes."""
    coords, labels = (values[4:8] for values in sample_prompts(session.model.image_size, seed=0))
    inputs = {"image": generate(GOLDEN_SCENE).image, "point_coords": coords, "point_labels": labels}
    return inputs | golden_results(session.model.mask_threshold, *_run(session, inputs))


def compare(session: SessionLike, golden: Mapping[str, np.ndarray]) -> tuple[Check, ...]:
    """Run the golden image on any executor; compare embedding, masks and scores."""
    return compare_results(session.model.mask_threshold, golden, *_run(session, golden))


def _run(session: SessionLike, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embedding, masks and scores of the prompts; behind them, with a memory, those of the first object remembered."""
    model, functions = session.model, Sam2Functions(session)
    features = functions.encode(prepare(model, inputs["image"]))
    decoded = functions.decode(features, inputs["point_coords"], inputs["point_labels"])
    if not model.video:
        return features.embedding, decoded.masks, decoded.iou
    logits = enlarge(decoded.masks[:1, 1:2], (model.image_size, model.image_size))
    memory = functions.encode_memory(features, memory_input(model, logits), decoded.score[:1])
    remembered = functions.attend_memory(
        functions.attend_frame(features),
        memory,
        np.zeros(1, np.int64),
        decoded.pointers[:1, 1],
        np.zeros(1, np.float32),
    )
    found = functions.decode(features._replace(embedding=remembered), *with_padding(np.zeros((1, 1, 2)), _NO_POINT))
    parts = zip((features.embedding, decoded.masks, decoded.iou), (remembered, found.masks, found.iou), strict=True)
    embedding, masks, iou = (np.concatenate(pair, axis) for pair, axis in zip(parts, (1, 0, 0), strict=True))
    return embedding, masks, iou
