"""Generated clips: what their annotation promises."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.clips import LENGTH, _MovingShape, clips, generate
from tvm_ahcq.scenes import MIN_VISIBLE_AREA, Canvas


def test_a_clip_depends_on_its_seed_alone():
    first, again, other = generate(7), generate(7), generate(8)
    np.testing.assert_array_equal(first.frames, again.frames)
    np.testing.assert_array_equal(first.labels, again.labels)
    assert not np.array_equal(first.frames, other.frames)


def test_clips_are_numbered_consecutively():
    np.testing.assert_array_equal([c.labels for c in clips(4, 2, length=3)][1], generate(5, length=3).labels)


@pytest.mark.parametrize("length, size", [(LENGTH, 256), (3, 128), (1, 256)])
def test_a_clip_has_the_length_and_size_asked_for(length, size):
    clip = generate(1, length, size)
    assert clip.frames.shape == (length, size, size, 3) and clip.frames.dtype == np.uint8
    assert clip.labels.shape == (length, size, size) and clip.labels.dtype == np.uint8
    assert clip.objects()
    for index in clip.objects():
        assert clip.masks(index)[0].sum() >= MIN_VISIBLE_AREA


@pytest.mark.parametrize("time", [0, 5, 15])
def test_labels_are_the_pixels_that_a_shape_covers_by_more_than_half(time):
    """Painted over black and over white, a pixel differs by what the shape leaves of it."""
    rng = np.random.default_rng(3)
    canvas = Canvas(rng, 192)
    shapes = [_MovingShape(rng, canvas, 192, 16) for _ in range(4)]
    top = np.zeros((192, 192), np.uint8)
    wanted = np.zeros_like(top)
    for number, shape in enumerate(shapes, 1):
        black, white = np.zeros((192, 192, 3)), np.ones((192, 192, 3))
        shape.paint(black, np.zeros_like(top), number, time)
        shape.paint(white, top, number, time)
        cover = 1 - (white - black)[..., 0]
        assert cover.min() > -1e-6 and cover.max() < 1 + 1e-6
        wanted[cover > 0.5 + 1e-6] = number
        undecided = np.abs(cover - 0.5) <= 1e-6
        wanted[undecided] = top[undecided]
    np.testing.assert_array_equal(top, wanted)
    assert len(np.unique(top)) > 2


def test_outlines_are_hard_edges_on_every_frame():
    """Across an outline the colour changes more than inside an object: labels lie where shapes were painted."""
    edges, inside = np.zeros(LENGTH), np.zeros(LENGTH)
    for clip in clips(0, 10):
        step = np.abs(np.diff(clip.frames.astype(float), axis=2)).mean(-1)
        change = clip.labels[:, :, 1:] != clip.labels[:, :, :-1]
        edges += [step[t][change[t]].mean() for t in range(LENGTH)]
        inside += [step[t][~change[t]].mean() for t in range(LENGTH)]
    assert (edges > 4 * inside).all()


def test_objects_move_and_some_leave_and_return():
    overlaps, returns = [], 0
    for clip in clips(0, 12):
        for index in clip.objects():
            masks = clip.masks(index)
            overlaps.append((masks[0] & masks[-1]).sum() / (masks[0] | masks[-1]).sum())
            gone = np.flatnonzero(~masks.any((1, 2)))
            returns += len(gone) > 0 and masks[gone[0] :].any()
    assert np.mean(overlaps) < 0.5
    assert returns >= 2


def test_some_objects_pass_behind_others():
    """A pixel of an object goes to one that is painted later while most of both objects still show."""
    hidden = 0
    for clip in clips(0, 12):
        for index in clip.objects():
            before, after = clip.masks(index)[:-1], clip.labels[1:]
            hidden += int((before & (after > index)).sum((1, 2)).max() > 50)
    assert hidden >= 5
