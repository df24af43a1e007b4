"""The published HLUQ's straight-through gradients against the reference vectors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.quantizers.published import hluq as hluq_published
from tvm_ahcq.quantizers.published.hluq_gradient import fake_quant_published


@pytest.mark.parametrize("mask", ["ref", "fixed"])
@pytest.mark.parametrize("bits", [4, 6])
def test_values_and_gradients(vectors, bits, mask):
    d, key = vectors("train"), f"hluq_b{bits}_{mask}"
    fp_min, scale_log, scale_uni, grid_rate = d["hluq_params"]
    scales = hluq_published.HluqScales(bits, fp_min, scale_log, scale_uni, grid_rate)
    x = torch.from_numpy(d["hluq_x"]).requires_grad_(True)
    log, uni = (torch.tensor([s], dtype=torch.float32, requires_grad=True) for s in (scale_log, scale_uni))
    out = fake_quant_published(x, log, uni, scales, mask)
    out.backward(torch.from_numpy(d["upstream"]))
    np.testing.assert_allclose(out.detach(), d[f"{key}_out"], atol=1e-5)
    numpy_twin = hluq_published.fake_quant_published(d["hluq_x"], scales, mask)
    assert np.mean(np.abs(out.detach().numpy() - numpy_twin) > 1e-5) <= 0.01
    np.testing.assert_allclose(x.grad, d[f"{key}_grad_x"], atol=1e-5)
    np.testing.assert_allclose(log.grad, d[f"{key}_grad_log"], atol=1e-3)
    np.testing.assert_allclose(uni.grad, d[f"{key}_grad_uni"], rtol=1e-3)


def test_unknown_mask_is_refused():
    scales = hluq_published.HluqScales(4, 0, 1, 1, 0.25)
    with pytest.raises(ValueError, match="'fixed' or 'ref'"):
        fake_quant_published(torch.zeros(1), torch.ones(1), torch.ones(1), scales, "none")
