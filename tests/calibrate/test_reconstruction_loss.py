"""Loss, penalty and schedule of reconstruction against the reference vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.calibrate.reconstruction_loss import output_error, penalty_applies, rounding_penalty, temperature


@pytest.mark.parametrize("bits", [4, 6])
def test_rounding_penalty(vectors, bits):
    d = vectors("train")
    alpha = torch.from_numpy(d[f"ada_b{bits}_alpha"])
    for beta, expected in d[f"ada_b{bits}_reg"]:
        np.testing.assert_allclose(rounding_penalty(alpha, beta).item(), expected, rtol=1e-3)


def test_temperature_over_the_published_iterations(vectors):
    for iteration, beta in vectors("train")["temp"]:
        np.testing.assert_allclose(temperature(iteration, 20000), beta, rtol=1e-6)


def test_output_error(vectors):
    d = vectors("train")
    ours = output_error(torch.from_numpy(d["lp_pred"]), torch.from_numpy(d["lp_tgt"]))
    np.testing.assert_allclose(ours.item(), d["lp_loss"], rtol=1e-5)


def test_penalty_is_zero_for_settled_rounding_and_pushes_undecided_alphas_outwards():
    assert rounding_penalty(torch.tensor([-9.0, 9.0]), 2.0).item() == 0
    alpha = torch.tensor([-0.5, 0.5], requires_grad=True)
    rounding_penalty(alpha, 2.0).backward()
    assert alpha.grad[0] > 0 > alpha.grad[1]


def test_schedule_ends():
    assert temperature(0, 100) == temperature(19, 100) == 20
    assert temperature(100, 100) == temperature(500, 100) == 2
    assert not penalty_applies(19, 100) and penalty_applies(20, 100)
