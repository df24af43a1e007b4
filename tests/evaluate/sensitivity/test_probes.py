"""Pictures and prompts in the model's frame."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import ImageError
from tvm_ahcq.evaluate.sensitivity.probes import BOXES, CLICKS, Probe, in_frame, random_probes, scene_probes
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.scenes import generate

SPEC = SamSpec("tiny", 128, 8, 32, 0.0, (123.0, 116.0, 103.0), (58.0, 57.0, 57.0))
PICTURE = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)


def test_random_prompts_lie_in_their_picture_and_depend_on_the_seed():
    first, again, other = (random_probes([PICTURE, PICTURE], seed)[1] for seed in (0, 0, 1))
    assert first.prompts == CLICKS + BOXES
    np.testing.assert_array_equal(first.clicks, again.clicks)
    assert (first.clicks != other.clicks).any()
    for points in (first.clicks, first.boxes.reshape(-1, 2)):
        assert (points >= 0).all() and (points <= (90, 60)).all()
    assert (first.boxes[:, 2:] > first.boxes[:, :2]).all()


def test_scenes_are_prompted_at_every_object():
    scene = generate(3)
    (probe,) = scene_probes([scene])
    assert len(probe.clicks) == len(probe.boxes) > 0
    x, y = probe.clicks[0].astype(int)
    assert scene.labels[y, x] == scene.objects()[0]


def test_the_frame_has_clicks_with_padding_then_box_corners_scaled_with_the_picture():
    frame = in_frame(Probe(PICTURE, np.array([[45.0, 30.0]]), np.array([[0.0, 15.0, 90.0, 60.0]])), SPEC)
    assert frame.image.shape == (1, 3, 128, 128) and frame.input_size == (85, 128) and frame.clicks == 1
    assert (frame.image[..., 85:, :] == 0).all()
    expected = np.array([[[45, 30], [0, 0]], [[0, 15], [90, 60]]]) * (128 / 90, 85 / 60)
    np.testing.assert_allclose(frame.prompts[0], expected, rtol=1e-6)
    np.testing.assert_array_equal(frame.prompts[1], [[1, -1], [2, 3]])


def test_what_is_not_a_picture_is_refused():
    with pytest.raises(ImageError, match="grey"):
        random_probes([PICTURE[..., 0]])
