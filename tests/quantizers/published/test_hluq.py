"""The published HLUQ against the reference vectors, with and without its fault."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.core.params import params_from_dict
from tvm_ahcq.quantizers.published.hluq import (
    GRID,
    HluqPublishedParams,
    HluqScales,
    encode_published,
    fake_quant_published,
    scales_from_range,
    search_published,
)

CASES = [(name, bits, mask) for name in ("hluq_large", "hluq_small") for bits in (4, 5, 6) for mask in ("ref", "fixed")]


@pytest.mark.parametrize(("name", "bits", "mask"), CASES)
def test_search_reproduces_losses_and_choice(vectors, name, bits, mask):
    d = vectors(name)
    np.testing.assert_array_equal(GRID, d["grid_order"])
    scales, losses = search_published(d["x"], d["weight"], bits, mask)
    np.testing.assert_allclose(losses, d[f"b{bits}_{mask}_loss"], rtol=1e-2)
    mean = np.sort(losses.mean(0))
    np.testing.assert_allclose(mean[1] / mean[0] - 1, d[f"b{bits}_{mask}_margin"], rtol=5e-2)
    if d[f"b{bits}_{mask}_margin"] > 1e-3:
        np.testing.assert_array_equal(GRID[losses.mean(0).argmin()], d[f"b{bits}_{mask}_choice"])
        ours = (scales.fp_min, d["x"].max((1, 2)).mean(), scales.scale_log, scales.scale_uni)
        np.testing.assert_allclose(ours, d[f"b{bits}_{mask}_params"], rtol=1e-5)


@pytest.mark.parametrize(("name", "bits", "mask"), CASES)
def test_codes_table_and_error_for_the_given_parameters(vectors, name, bits, mask):
    d = vectors(name)
    low, high, _, _ = d[f"b{bits}_{mask}_params"]
    scales = scales_from_range(low, high, bits, *d[f"b{bits}_{mask}_choice"])
    table = d[f"b{bits}_{mask}_table"]
    np.testing.assert_allclose(scales.table(), table, rtol=1e-6)
    codes = encode_published(d["x"][-1], scales, mask)
    assert np.mean(table[codes] != table[d[f"b{bits}_{mask}_codes"]]) <= 1e-3
    error = np.mean((scales.table()[codes].astype(np.float64) - d["x"][-1]) ** 2)
    np.testing.assert_allclose(error, d[f"b{bits}_{mask}_mse"], rtol=1e-3)


@pytest.mark.parametrize("mask", ["ref", "fixed"])
@pytest.mark.parametrize("name", ["hluq_large", "hluq_small"])
def test_probes_of_edges(vectors, name, mask):
    d = vectors(name)
    for row, (bits, fp_min, scale_log, scale_uni, grid_rate) in enumerate(d["probe_params"]):
        scales = HluqScales(int(bits), fp_min, scale_log, scale_uni, grid_rate)
        ours = fake_quant_published(d["probe_x"][row], scales, mask)
        assert np.mean(np.abs(ours - d[f"probe_{mask}"][row]) > 1e-5) <= 0.01


def test_unknown_mask_is_refused():
    with pytest.raises(ValueError, match="'fixed' or 'ref'"):
        encode_published(np.zeros(1, np.float32), HluqScales(4, 0, 1, 1, 0.25), "none")


PARAMS = [
    HluqPublishedParams.of(scales_from_range(low, high, bits, *GRID[candidate]))
    for low, high in ((-0.17, 4.0), (0.0, 900.0), (-0.17, 1e-3))
    for bits in (4, 6, 8)
    for candidate in (0, 4, 8)
]


@pytest.mark.parametrize("params", PARAMS, ids=str)
def test_deployed_codes_are_the_published_ones_and_values_within_half_a_step_of_the_table(params):
    top = float(params.scales.heights()[-1])
    x = np.concatenate([np.linspace(-0.5, 1.2 * top, 40_001), np.geomspace(1e-7, 2 * top, 20_001)])
    x = (params.fp_min + x).astype(np.float32)
    codes = encode_published(x, params.scales)
    np.testing.assert_array_equal(params.codebook().encode(x), codes)
    expected = params.scales.table().astype(np.float64)[codes]
    rounding = 2e-7 * max(abs(params.fp_min), top)
    assert np.abs(params.codebook().fake_quant(x) - expected).max() <= 0.5 * params.delta + rounding
    assert params_from_dict(params.to_dict()) == params


@pytest.mark.parametrize("value", [0.0, 0.7, -0.17, 1e6])
def test_constant_activations_are_kept(value):
    x = np.full((2, 10, 6), value, np.float32)
    with np.errstate(all="raise", over="ignore", under="ignore"):
        scales, losses = search_published(x, np.ones((3, 6), np.float32), 4)
        params = HluqPublishedParams.of(scales)
        assert np.isfinite(losses).all()
        np.testing.assert_allclose(params.codebook().fake_quant(x), x, rtol=1e-6, atol=1e-7)
