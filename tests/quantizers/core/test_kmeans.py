"""k-means against separable data and the reference inertia."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.core.kmeans import inertia, kmeans


def test_separated_clouds_are_told_apart():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 90)
    points = np.array([[0, 0], [10, 0], [0, 10]])[truth] + rng.normal(size=(90, 2))
    labels = kmeans(points, 3)
    assert len({(a, b) for a, b in zip(truth, labels, strict=True)}) == 3


@pytest.mark.parametrize("bits", [4, 6])
def test_inertia_is_close_to_the_reference(vectors, bits):
    d = vectors("cag_768")
    points = np.stack([d[f"b{bits}_ch_scale"], d[f"b{bits}_ch_zp"]], 1)
    assert inertia(points, kmeans(points, 32)) <= 1.25 * d[f"b{bits}_g32_inertia"]


def test_fewer_distinct_points_than_clusters():
    labels = kmeans(np.array([[1.0], [1.0], [2.0]]), 3)
    assert labels[0] == labels[1] != labels[2]
