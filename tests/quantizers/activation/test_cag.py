"""CAG: reference vectors for the arithmetic, and comparisons for the grouping."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError, QuantTableError
from tvm_ahcq.quantizers.activation.cag import CagParams, calibrate_cag, regroup_by_error
from tvm_ahcq.quantizers.activation.uniform import calibrate_uniform
from tvm_ahcq.quantizers.core.params import params_from_dict
from tvm_ahcq.quantizers.core.range_rule import range_rule
from tvm_ahcq.quantizers.published.cag import calibrate_cag_published


def relative_error(params, x: np.ndarray, importance: np.ndarray | None = None) -> float:
    weight = np.ones(x.shape[-1]) if importance is None else importance
    wide = x.astype(np.float64)
    return float((((params.fake_quant(x) - wide) ** 2) * weight).sum() / ((wide**2) * weight).sum())


def published_groups(d: dict[str, np.ndarray], bits: int) -> CagParams:
    key = f"b{bits}_g4"
    return CagParams(bits, tuple(d[f"{key}_scale"]), tuple(d[f"{key}_zp"]), tuple(d[f"{key}_labels"]))


@pytest.mark.parametrize("bits", [4, 6])
def test_channel_ranges_and_group_codes(vectors, bits):
    d = vectors("cag_768")
    low, high = d["x"].min(1).mean(0), d["x"].max(1).mean(0)
    np.testing.assert_allclose(low, d[f"b{bits}_ch_min"], atol=1e-5)
    np.testing.assert_allclose(high, d[f"b{bits}_ch_max"], atol=1e-5)
    scale, zero_point = range_rule(low, high, bits)
    np.testing.assert_allclose(scale, d[f"b{bits}_ch_scale"], rtol=1e-5)
    assert np.mean(zero_point != d[f"b{bits}_ch_zp"]) <= 5e-3
    params = published_groups(d, bits)
    assert np.mean(params.encode(d["x"][-1]) != d[f"b{bits}_g4_codes"]) <= 1e-3
    np.testing.assert_allclose(relative_error(params, d["x"][-1]), d[f"b{bits}_g4_relmse"], rtol=1e-3)


@pytest.mark.parametrize("bits", [4, 6])
def test_a_quantizer_for_each_channel(vectors, bits):
    d = vectors("cag_768")
    scale, zero_point = d[f"b{bits}_ch_scale"], d[f"b{bits}_ch_zp"]
    params = CagParams(bits, tuple(scale), tuple(zero_point), tuple(range(768)))
    difference = np.abs(params.encode(d["x"][-1]).astype(int) - d[f"b{bits}_ch_codes"])
    assert difference.max() <= 1 and np.mean(difference != 0) <= 5e-3


@pytest.mark.parametrize("bits", [4, 6])
def test_error_driven_groups_beat_the_published_ones_on_unseen_samples(vectors, bits):
    d = vectors("cag_768")
    rng = np.random.default_rng(0)
    for importance in (None, rng.uniform(0.1, 10, 768)):
        ours = calibrate_cag(d["x"][:2], bits, importance)
        theirs = published_groups(d, bits)
        assert relative_error(ours, d["x"][-1], importance) < 0.5 * relative_error(theirs, d["x"][-1], importance)


@pytest.mark.parametrize("bits", [4, 6])
def test_progressive_grouping_ends_about_where_four_groups_at_once_do(vectors, bits):
    d = vectors("cag_768")
    importance = np.random.default_rng(0).uniform(0.1, 10, 768)
    params = calibrate_cag(d["x"], bits, importance, groups=32)
    errors = [relative_error(params, d["x"], importance)]
    for groups in (16, 8, 4):
        params = regroup_by_error(params, d["x"], groups, importance)
        assert params.groups <= groups and list(params.scales) == sorted(params.scales)
        errors.append(relative_error(params, d["x"], importance))
    assert errors == sorted(errors)
    assert errors[-1] <= 1.2 * relative_error(calibrate_cag(d["x"], bits, importance), d["x"], importance)
    low, high = d["x"].min(1).mean(0), d["x"].max(1).mean(0)
    published = calibrate_cag_published(low, high, bits)
    assert errors[-1] < 0.5 * relative_error(published, d["x"], importance)


def test_regrouping_keeps_learned_scales_that_no_refit_beats():
    x = (np.random.default_rng(0).normal(size=(200, 6)) * [1, 1, 1, 50, 50, 50]).astype(np.float32)
    best = calibrate_cag(x, 4, groups=2)
    spare = CagParams(4, (*best.scales, 1e4), (*best.zero_points, 8), (0, 0, 0, 1, 1, 2))
    assert regroup_by_error(spare, x, 2) == best
    with pytest.raises(ValueError, match="channels"):
        regroup_by_error(spare, x[:, :5], 2)


def test_groups_follow_the_scale_of_channels():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 96)
    x = (rng.normal(size=(400, 96)) * 10.0**truth).astype(np.float32)
    # every magnitude matters alike, as when the weights of small channels are large
    params = calibrate_cag(x, 4, 100.0**-truth)
    np.testing.assert_array_equal(params.group_of, truth)
    assert list(params.scales) == sorted(params.scales)


def test_more_groups_are_never_much_worse_and_one_group_is_uniform():
    rng = np.random.default_rng(1)
    x = (rng.normal(size=(200, 64)) * np.exp(rng.normal(size=64))).astype(np.float32)
    errors = [relative_error(calibrate_cag(x, 4, groups=g), x) for g in (1, 2, 4, 8)]
    assert errors == sorted(errors, reverse=True)
    one = calibrate_cag(x, 4, groups=1)
    np.testing.assert_allclose(errors[0], relative_error(calibrate_uniform(x, 4), x), rtol=0.02)
    assert one.groups == 1


def test_zero_is_exact_in_every_channel_and_constant_channels_are_fine():
    x = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    x[:, 3] = 0
    x[:, 4] = 7
    params = calibrate_cag(x, 4, np.append(np.ones(9), 0.0))
    assert not params.fake_quant(np.zeros((1, 10), np.float32)).any()


@pytest.mark.parametrize("samples", [np.zeros((5, 3)), np.ones((1, 1)), np.ones((4, 2))])
def test_degenerate_samples_still_calibrate(samples):
    params = calibrate_cag(samples, 4)
    assert len(params.group_of) == samples.shape[1]
    np.testing.assert_allclose(params.fake_quant(np.float32(samples)), samples, rtol=0.05)


def test_codebooks_give_the_codes_of_their_group():
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(100, 24)) * np.exp(2 * rng.normal(size=24))).astype(np.float32)
    params = calibrate_cag(x, 4)
    codes, books = params.encode(x), params.codebooks()
    for channel, group in enumerate(params.group_of):
        np.testing.assert_array_equal(books[group].encode(x[:, channel]), codes[:, channel])


def test_json_round_trip_and_refusals():
    params = CagParams(4, (0.1, 0.2), (3, 4), (0, 1, 1))
    assert params_from_dict(params.to_dict()) == params
    with pytest.raises(QuantTableError, match="none empty"):
        params_from_dict(params.to_dict() | {"group_of": [0, 0, 0]})
    with pytest.raises(ValueError, match="importance"):
        calibrate_cag(np.ones((3, 4)), 4, np.ones(3))
    with pytest.raises(CalibrationError):
        calibrate_cag(np.zeros((0, 4)), 4)
