"""The predictor against upstream's ``SAM2ImagePredictor`` on the same weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.api import float_session
from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.predictor import Sam2ImagePredictor
from tvm_ahcq.models.sam2.timing import fit_upstream_predictor

PROMPTS: dict[str, dict[str, Any]] = {
    "a click": {"point_coords": [[40, 30]], "point_labels": [1]},
    "two clicks": {"point_coords": [[40, 30], [10, 50]], "point_labels": [1, 0]},
    "a box": {"box": [10, 20, 60, 70]},
    "a box and a click": {"box": [10, 20, 60, 70], "point_coords": [[40, 30]], "point_labels": [1]},
    "several boxes": {"box": [[10, 20, 60, 70], [5, 5, 30, 40]]},
    "several clicks": {"point_coords": [[[40, 30]], [[20, 60]]], "point_labels": [[1], [1]]},
    "corners as points": {"point_coords": [[10, 20], [60, 70]], "point_labels": [2, 3]},
}


@pytest.fixture(scope="module", params=[0, 1, 2])
def pair(request: pytest.FixtureRequest, sam2: Any, model: FloatModel, pictures: list[np.ndarray]) -> tuple[Any, Any]:
    """Our predictor and upstream's with the same picture."""
    ours, theirs = Sam2ImagePredictor(float_session(model)), fit_upstream_predictor(sam2)
    for predictor in (ours, theirs):
        predictor.set_image(pictures[request.param])
    return ours, theirs


def given(prompt: dict[str, Any]) -> dict[str, Any]:
    return {name: np.array(value) for name, value in prompt.items()}


def assert_same(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-3 * max(1.0, float(np.abs(b).max())))


def test_embeddings_are_upstreams(pair: tuple[Any, Any]) -> None:
    ours, theirs = pair
    assert_same((ours.get_image_embedding(),), (theirs.get_image_embedding().numpy(),))


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize("prompt", PROMPTS.values(), ids=PROMPTS.keys())
def test_logits_are_upstreams(pair: tuple[Any, Any], prompt: dict[str, Any], multimask: bool) -> None:
    ours, theirs = (
        predictor.predict(**given(prompt), multimask_output=multimask, return_logits=True) for predictor in pair
    )
    assert_same(ours, theirs)


def test_masks_refined_by_earlier_logits_are_upstreams(pair: tuple[Any, Any]) -> None:
    _, scores, low = pair[1].predict(**given(PROMPTS["a click"]))
    best = low[scores.argmax()][None]
    for prompt in (PROMPTS["two clicks"], {}):
        results = [
            predictor.predict(**given(prompt), mask_input=best, multimask_output=False, return_logits=True)
            for predictor in pair
        ]
        assert_same(*results)


def test_normalised_coordinates_name_the_same_pixels(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    height, width = ours.original_size
    in_pixels = ours.predict(np.array([[width / 4, height / 2]]), np.array([1]))
    as_parts = ours.predict(np.array([[0.25, 0.5]]), np.array([1]), normalize_coords=False)
    assert_same(in_pixels, as_parts)


def test_a_batch_of_pictures_is_upstreams(sam2: Any, model: FloatModel, pictures: list[np.ndarray]) -> None:
    ours, theirs = Sam2ImagePredictor(float_session(model)), fit_upstream_predictor(sam2)
    clicks, labels = [np.array([[20, 30]])] * 3, [np.array([1])] * 3
    results = []
    for predictor in (ours, theirs):
        predictor.set_image_batch(pictures)
        results.append(predictor.predict_batch(clicks, labels, return_logits=True))
    for mine, others in zip(*results, strict=True):
        assert_same(tuple(mine), tuple(others))


def test_pillow_images_are_taken(pair: tuple[Any, Any], model: FloatModel, pictures: list[np.ndarray]) -> None:
    array, picture = (Sam2ImagePredictor(float_session(model)) for _ in range(2))
    array.set_image(pictures[0])
    picture.set_image(Image.fromarray(pictures[0]))
    np.testing.assert_array_equal(array.get_image_embedding(), picture.get_image_embedding())


def test_predict_before_an_image_is_refused(model: FloatModel) -> None:
    predictor = Sam2ImagePredictor(float_session(model))
    with pytest.raises(RuntimeError, match="set_image"):
        predictor.predict(np.array([[1, 1]]), np.array([1]))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ({"point_coords": [[1, 1]]}, "point_labels must be supplied"),
        ({"point_coords": [[500, 1]], "point_labels": [1]}, "outside the image"),
        ({"point_coords": [[1, 1]], "point_labels": [7]}, "label 7 is not known"),
        ({"box": [30, 30, 10, 10]}, "wrong order"),
        ({"mask_input": np.zeros((1, 5, 5))}, "mask_input has shape"),
        ({"box": [[1, 1, 5, 5], [1, 1, 6, 6]], "point_coords": [[1, 1]], "point_labels": [1]}, "2 objects"),
    ],
)
def test_bad_prompts_are_explained(pair: tuple[Any, Any], prompt: dict[str, Any], message: str) -> None:
    with pytest.raises(PromptError, match=message):
        pair[0].predict(**given(prompt))


def test_annotated_boxes_may_reach_over_the_edges(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    height, width = ours.original_size
    masks, scores = ours.predict_boxes(np.array([[-1, 2, width + 0.5, height]]))
    assert masks.shape == (1, 1, height, width) and scores.shape == (1, 1)
    masks, scores = ours.predict_clicks(np.array([[5, 6], [20, 30], [7, 8]]))
    assert masks.shape == (3, 3, height, width) and scores.shape == (3, 3)


def test_a_list_that_is_none_of_images_is_refused(model: FloatModel, pictures: list[np.ndarray]) -> None:
    predictor = Sam2ImagePredictor(float_session(model))
    with pytest.raises(ImageError, match="expected a list"):
        predictor.set_image_batch(pictures[0])
    predictor.set_image(pictures[0])
    with pytest.raises(PromptError, match="set_image_batch"):
        predictor.predict_batch([np.array([[1, 1]])], [np.array([1])])
