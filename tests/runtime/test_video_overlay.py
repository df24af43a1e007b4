"""Objects drawn into a frame: tinted inside, smooth at the edge, nothing elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.runtime.video_overlay import DrawnPrompts, colour_of, draw_objects

IMAGE = np.full((120, 160, 3), 100, np.uint8)


@pytest.fixture
def disc() -> np.ndarray:
    """A disc in the middle."""
    y, x = np.mgrid[:120, :160]
    return (y - 60) ** 2 + (x - 80) ** 2 < 40**2


def test_inside_is_tinted_the_edge_is_the_colour_and_far_away_nothing_changes(disc: np.ndarray) -> None:
    drawn = draw_objects(IMAGE, [disc])
    colour = np.array(colour_of(0))
    np.testing.assert_array_equal(drawn[60, 80], np.rint(100 * 0.55 + colour * 0.45))
    y, x = np.mgrid[:120, :160]
    np.testing.assert_array_equal(drawn[(y - 60) ** 2 + (x - 80) ** 2 > 48**2], 100)
    edge = np.abs(drawn[60, 119:122].astype(int) - colour).max(1)
    assert edge.min() < 20
    np.testing.assert_array_equal(IMAGE, 100)


def test_edges_have_steps_between(disc: np.ndarray) -> None:
    row = draw_objects(IMAGE, [disc])[60, :, 0].astype(int)
    assert len(np.unique(row)) > 4


def test_a_mask_that_fills_the_frame_has_no_outline() -> None:
    drawn = draw_objects(IMAGE, [np.ones((120, 160), bool)])
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 1


def test_an_object_keeps_its_colour_while_another_is_away(disc: np.ndarray) -> None:
    both, second = (draw_objects(IMAGE, [first, disc]) for first in (disc, np.zeros_like(disc)))
    np.testing.assert_array_equal(second[60, 80], np.rint(100 * 0.55 + np.array(colour_of(1)) * 0.45))
    assert not np.array_equal(both[60, 80], second[60, 80])


def test_thirty_objects_have_thirty_colours() -> None:
    colours = np.array([colour_of(number) for number in range(30)], int)
    apart = np.abs(colours[:, None] - colours[None]).sum(-1)[np.triu_indices(30, 1)]
    assert apart.min() > 12 and colours.min() >= 0 and colours.max() <= 255


def test_prompts_are_drawn() -> None:
    prompts = DrawnPrompts([(30.0, 20.0), (130.0, 100.0)], [1, 0], [(10.0, 60.0, 40.0, 90.0)])
    drawn = draw_objects(IMAGE, [], prompts).astype(int)
    assert drawn[20, 30, 1] > 2 * drawn[20, 30, 0] and drawn[100, 130, 0] > 2 * drawn[100, 130, 1]
    np.testing.assert_array_equal(drawn[60, 10:41], 255)
