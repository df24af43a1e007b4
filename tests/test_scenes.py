"""Generated scenes: what their annotation promises."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.scenes import MIN_VISIBLE_AREA, generate, scenes


def test_a_scene_depends_on_its_seed_alone():
    first, again, other = generate(7), generate(7), generate(8)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.image, other.image)


@pytest.mark.parametrize("seed", range(12))
def test_annotated_objects_are_visible_and_parts_lie_in_their_wholes(seed):
    scene = generate(seed)
    assert scene.image.shape == (256, 256, 3) and scene.image.dtype == np.uint8
    assert scene.objects()
    assert scene.labels.max() < len(scene.parents)
    for index in scene.objects():
        assert scene.mask(index).sum() >= MIN_VISIBLE_AREA
        parent = int(scene.parents[index])
        if parent:
            assert scene.parents[parent] == 0
            assert (scene.mask(parent) >= scene.mask(index)).all()


def test_every_pixel_belongs_to_at_most_one_whole_object():
    scene = generate(3)
    wholes = [scene.mask(i) for i in range(1, len(scene.parents)) if scene.parents[i] == 0]
    assert np.sum(wholes, axis=0).max() == 1


def test_scenes_are_numbered_consecutively():
    np.testing.assert_array_equal([s.image for s in scenes(4, 2)][1], generate(5).image)


def test_outlines_are_hard_edges_in_most_places():
    """Across an outline the colour changes more than inside an object: a click has one right answer."""
    edges, inside = [], []
    for scene in scenes(0, 10):
        step = np.abs(np.diff(scene.image.astype(float), axis=1)).mean(-1)
        change = scene.labels[:, 1:] != scene.labels[:, :-1]
        edges.append(step[change].mean())
        inside.append(step[~change].mean())
    assert np.mean(edges) > 4 * np.mean(inside)
