"""ACNR against the reference vectors, and its edge cases."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import CalibrationError, CheckpointError
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.weight.acnr import Conditioner, condition_number, input_error_moment

NAMES = ["acnr_exp", "acnr_good", "acnr_lin", "acnr_pow"]


def differences(d: dict[str, np.ndarray]) -> np.ndarray:
    scale, zero_point, bits = d["act"]
    return d["fp_inp"] - UniformParams(int(bits), scale, int(zero_point)).fake_quant(d["quant_inp"])


def conditioner(d: dict[str, np.ndarray], doubled: bool = True) -> Conditioner:
    return Conditioner(d["W"], input_error_moment(differences(d)), doubled_energy=doubled)


def relative_distance(ours: np.ndarray, reference: np.ndarray) -> float:
    return float(np.linalg.norm(ours.astype(np.float64) - reference) / np.linalg.norm(reference.astype(np.float64)))


def ill_conditioned(rows: int, columns: int, condition: float) -> np.ndarray:
    u, s, v = np.linalg.svd(np.random.default_rng(0).normal(size=(rows, columns)), full_matrices=False)
    return ((u * np.geomspace(1, 1 / condition, s.size)) @ v).astype(np.float32)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("key", "iterations", "doubled"), [("k200", 200, 1), ("k200_dedup", 200, 0), ("k20", 20, 1)])
def test_weights_and_spectra_equal_the_published_loop(vectors, name, key, iterations, doubled):
    d = vectors(name)
    ours = conditioner(d, bool(doubled))
    result = ours.weight(iterations)
    assert result.weight.dtype == np.float32 and result.iterations == iterations
    assert relative_distance(result.weight, d[f"W_{key}"]) <= 1e-5
    np.testing.assert_allclose(np.sort(ours.spectrum(iterations))[::-1], d[f"S_{key}"], rtol=1e-6)
    np.testing.assert_allclose(result.cond_before, d["cond_before"], rtol=1e-5)
    np.testing.assert_allclose(result.cond_after, d[f"cond_{key}"], rtol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_condition_number_as_the_published_code_logs_it(vectors, name):
    d = vectors(name)
    moment = input_error_moment(differences(d))
    stale = Conditioner(d["W"], moment, doubled_energy=True).weight(200, stale_log=True)
    np.testing.assert_allclose(stale.cond_after, d["cond_k200_as_logged"], rtol=1e-5)
    assert relative_distance(stale.weight, d["W_k200"]) <= 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_spectrum_before_and_distance_to_the_float32_loop(vectors, name):
    d = vectors(name)
    ours = conditioner(d)
    np.testing.assert_allclose(ours.singular, d["S_before"], rtol=1e-6)
    # the authors' float32 decompositions mix close singular vectors, so their spectrum is looser
    np.testing.assert_allclose(np.sort(ours.spectrum(200))[::-1], d["S_k200_f32"], rtol=1e-2)


@pytest.mark.parametrize("name", [n for n in NAMES if n != "acnr_good"])
def test_energies_cuts_and_the_first_iteration(vectors, name):
    d = vectors(name)
    ours = conditioner(d)
    np.testing.assert_allclose(ours.energy, d["C0"], rtol=1e-3)
    projections = differences(d).reshape(-1, ours.directions.shape[1]).astype(np.float64) @ ours.directions.T
    np.testing.assert_allclose(2 * np.mean(projections**2, 0), ours.energy, rtol=1e-5)
    np.testing.assert_allclose(ours.spectrum(1), d["S_k1"], rtol=1e-6)
    singular, cuts = ours.singular, []
    for _ in range(200):
        singular, cut = ours.step(singular)
        cuts.append(cut)
    np.testing.assert_array_equal(cuts, d["cutoff"])


def test_one_decomposition_equals_the_loop_of_decompositions():
    weight = ill_conditioned(24, 40, 1e4)
    difference = np.random.default_rng(1).normal(size=(100, 40))
    looped = weight.astype(np.float64)
    for _ in range(30):
        u, s, v = np.linalg.svd(looped, full_matrices=False)
        energy = np.cumsum(s**2)
        tail = np.arange(s.size) > np.argmax(energy > 0.8 * energy[-1])
        c = np.mean((difference.astype(np.float32) @ v.T) ** 2, 0)
        lifted = np.maximum(s, (s + 0.006 * s.mean()) / (1.006 + 0.002 * c))
        looped = (u * np.where(tail, lifted, s)) @ v
    ours = Conditioner(weight, input_error_moment(difference)).weight(30)
    assert relative_distance(ours.weight, looped) < 1e-6
    np.testing.assert_allclose(ours.cond_after, np.linalg.cond(looped), rtol=1e-6)


def test_no_iterations_give_the_weight_and_more_condition_it_better():
    weight = ill_conditioned(30, 20, 1e3)
    ours = Conditioner(weight)
    np.testing.assert_array_equal(ours.weight(0).weight, weight)
    conditions = [ours.weight(k).cond_after for k in (0, 1, 2, 5, 20, 200)]
    assert conditions == sorted(conditions, reverse=True) and conditions[-1] < 0.02 * conditions[0]


def test_well_conditioned_weights_are_left_alone():
    weight = ill_conditioned(16, 16, 99)
    ours = Conditioner(weight).weight(200)
    np.testing.assert_array_equal(ours.weight, weight)
    assert ours.cond_after == ours.cond_before < 100


def test_zero_columns_stay_zero_while_the_rest_is_conditioned():
    weight = ill_conditioned(32, 24, 1e3)
    dead = np.insert(weight, [3, 10], 0, axis=1)
    ours, plain = Conditioner(dead).weight(50), Conditioner(weight).weight(50)
    np.testing.assert_allclose(ours.cond_before, plain.cond_before, rtol=1e-6)
    assert np.abs(ours.weight[:, [3, 11]]).max() < 1e-9 * np.abs(weight).max()
    assert ours.cond_after < 0.5 * ours.cond_before


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (40, 40)])
def test_the_condition_number_needs_no_vectors(shape):
    assert condition_number(ill_conditioned(*shape, 5e3)) == pytest.approx(5e3, rel=1e-2)
    weight = ill_conditioned(*shape, 30.0)
    weight[:, :5] = 0
    assert condition_number(weight) == pytest.approx(Conditioner(weight).cond_before, rel=1e-9)
    assert condition_number(np.zeros(shape, np.float32)) == 1


def test_a_weight_of_zeros_is_left_alone():
    ours = Conditioner(np.zeros((4, 6)), np.eye(6)).weight(20)
    assert not ours.weight.any() and ours.cond_before == ours.cond_after == 1


def test_bad_input_is_refused():
    with pytest.raises(CheckpointError, match="two axes"):
        Conditioner(np.zeros((2, 3, 1, 1)))
    with pytest.raises(CheckpointError, match="finite"):
        Conditioner(np.full((2, 2), np.nan))
    with pytest.raises(CalibrationError, match="ACNR"):
        input_error_moment(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="moment"):
        Conditioner(np.ones((2, 3)), np.eye(2))
    with pytest.raises(ValueError, match="iterations"):
        Conditioner(np.ones((2, 3))).weight(-1)
