"""The published min-max observation."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.uniform import uniform_from_range
from tvm_ahcq.quantizers.published.average_range import AverageRange


def observed(batches, per_channel: bool = False) -> AverageRange:
    seen = AverageRange(per_channel)
    for batch in batches:
        seen.update(batch)
    return seen


@pytest.mark.parametrize("bits", [4, 6])
def test_tensor_range_of_the_reference(vectors, bits):
    d = vectors("uniform")
    seen = observed(d["x"])
    params = uniform_from_range(seen.low, seen.high, bits)
    np.testing.assert_allclose([seen.low, seen.high, params.scale], d[f"b{bits}_act"][:3], rtol=1e-5)
    assert params.zero_point == d[f"b{bits}_act"][3]


@pytest.mark.parametrize("bits", [4, 6])
def test_channel_ranges_of_the_reference(vectors, bits):
    d = vectors("cag_768")
    seen = observed(d["x"], per_channel=True)
    np.testing.assert_allclose(seen.low, d[f"b{bits}_ch_min"], atol=1e-5)
    np.testing.assert_allclose(seen.high, d[f"b{bits}_ch_max"], atol=1e-5)


def test_images_of_any_size_weigh_the_same_and_reset_forgets_them():
    seen = observed([np.float32([[0, 4]]), np.float32([[-2, 1], [1, 8], [0, 0]])])
    assert (seen.low, seen.high, seen.images) == (-1, 6, 2)
    seen.reset()
    seen.update(np.float32([[3, 3]]))
    assert (seen.low, seen.high, seen.images) == (3, 3, 1)


def test_bad_batches_are_refused():
    seen = AverageRange(per_channel=True)
    with pytest.raises(CalibrationError, match="at least one image"):
        _ = seen.low
    seen.update(np.zeros((2, 3)))
    with pytest.raises(CalibrationError, match="channels"):
        seen.update(np.zeros((2, 4)))
    with pytest.raises(CalibrationError, match="NaN"):
        seen.update(np.full((2, 3), np.nan))
    with pytest.raises(CalibrationError, match="no samples"):
        seen.update(np.zeros((0, 3)))
