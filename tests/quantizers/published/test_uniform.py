"""The published range search of keys against the reference vectors."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.activation.uniform import uniform_from_range
from tvm_ahcq.quantizers.published.uniform import calibrate_uniform_published, range_loss, search_range


@pytest.mark.parametrize("bits", [4, 6])
@pytest.mark.parametrize(("when", "suffix"), [("before", ""), ("after", "2")])
@pytest.mark.parametrize("name", ["big_bimodal", "big_unimodal"])
def test_keys_before_and_after_absorption(vectors, name, when, suffix, bits):
    d = vectors(name)
    keys = d["x"] @ d[f"Wk{suffix}"].T + d[f"bk{suffix}"]
    low, high, scale, _, error = d[f"b{bits}_{when}"]
    params = calibrate_uniform_published([keys], bits)
    np.testing.assert_allclose(params.scale, scale, rtol=5e-2)
    assert np.mean((params.fake_quant(keys) - keys) ** 2) <= 1.05 * error
    ours = search_range(keys, bits)
    assert range_loss(keys, *ours, bits) <= 1.05 * range_loss(keys, low, high, bits)
    given = uniform_from_range(low, high, bits)
    np.testing.assert_allclose(given.scale, scale, rtol=1e-5)
    assert given.zero_point == d[f"b{bits}_{when}"][3]
    np.testing.assert_allclose(np.mean((given.fake_quant(keys) - keys) ** 2), error, rtol=1e-3)


def test_ranges_of_images_are_averaged():
    images = [np.random.default_rng(i).normal(size=500).astype(np.float32) * (i + 1) for i in range(3)]
    ends = np.mean([search_range(image, 4) for image in images], axis=0)
    assert calibrate_uniform_published(images, 4) == uniform_from_range(ends[0], ends[1], 4)
    assert calibrate_uniform_published(images[:1], 4) == uniform_from_range(*search_range(images[0], 4), 4)


def test_one_sign_keeps_zero_at_an_end_and_mirrors():
    samples = np.random.default_rng(0).gamma(2, size=2000).astype(np.float32)
    low, high = search_range(samples, 4)
    assert low == 0 and 0 < high < samples.max()
    assert search_range(-samples, 4) == (-high, 0)


def test_thinned_search_is_about_as_good():
    samples = np.random.default_rng(0).standard_t(4, 200000).astype(np.float32)
    thinned_loss = range_loss(samples, *search_range(samples, 4), 4)
    assert thinned_loss <= 1.05 * range_loss(samples, *search_range(samples[:60000], 4), 4)


@pytest.mark.parametrize("value", [0.0, 2.0, -3.0])
def test_constant_samples(value):
    params = calibrate_uniform_published([np.full((3, 4), value)], 4)
    np.testing.assert_allclose(params.fake_quant(np.float32([value])), [value], rtol=1e-3)


def test_bad_samples_are_refused():
    for batches in ([], [np.zeros(0)], [np.array([np.nan])]):
        with pytest.raises(CalibrationError, match="searched uniform"):
            calibrate_uniform_published(batches, 4)
