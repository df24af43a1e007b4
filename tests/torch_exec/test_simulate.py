"""The torch simulation of the sites against the numpy reference, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.reference import log_attention
from tvm_ahcq.torch_exec import simulate
from tvm_ahcq.torch_exec.simulate import SimulatedSites, Sites, level_of


@pytest.mark.parametrize("at_once", [1, 45, 200, 1 << 21])
@pytest.mark.parametrize("grid", [None, (5, 4)])
def test_attention_in_blocks_of_heads_and_rows_equals_the_formula(at_once, grid, monkeypatch):
    monkeypatch.setattr(simulate, "LOGITS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(3, 20, 8, generator=generator) for _ in range(3))
    logits, rel = 0.3 * q @ k.transpose(1, 2), (None, None)
    if grid:
        rel = tuple(torch.randn(2 * n - 1, 8, generator=generator) for n in grid)
        for i in range(20):
            for j in range(20):
                down, right = i // 4 - j // 4, i % 4 - j % 4
                logits[:, i, j] += q[:, i] @ rel[0][down + 4] + q[:, i] @ rel[1][right + 3]
    expected = logits.softmax(-1) @ v
    for attention in (Sites().attention, Sites().attention_by_probabilities):
        torch.testing.assert_close(attention("a", q, k, v, 0.3, *rel), expected)
    sites = {f"a.{role}": UniformParams(4, 0.37, 8) for role in "qkv"} | {"a.probs": LnqParams(4, 20.0, 0.7)}
    operands = [SimulatedSites(sites).activation(f"a.{r}", x) for r, x in zip("qkv", (q, k, v), strict=True)]
    blocked = SimulatedSites(sites).attention("a", *operands, 0.3, *rel)
    monkeypatch.undo()
    assert torch.equal(blocked, SimulatedSites(sites).attention("a", *operands, 0.3, *rel))


@pytest.mark.parametrize("kind", ["lnq", "row_relative"])
@pytest.mark.parametrize("bits", [4, 5, 6, 8])
@pytest.mark.parametrize("grid", [None, (5, 4)])
def test_simulated_attention_equals_the_reference_bit_for_bit(bits, grid, kind):
    rng = np.random.default_rng(bits)
    queries, keys = (20, 20) if grid else (7, 33)
    q, k, v = (rng.normal(size=(3, n, 16)).astype(np.float32) for n in (queries, keys, keys))
    top = 2**bits - 1
    sites = {f"a.{role}": UniformParams(bits, 5.5 / top, top // 2 + i) for i, role in enumerate("qkv")}
    sites["a.probs"] = LnqParams(bits, 20.0, 0.7) if kind == "lnq" else RowRelativeParams(bits, 20.0)
    rel = [(0.3 * rng.normal(size=(2 * n - 1, 16))).astype(np.float32) for n in grid] if grid else [None, None]
    codes = [sites[f"a.{role}"].encode(x) for x, role in zip((q, k, v), "qkv", strict=True)]
    constants, *tables = attention_constants(
        AttentionQuantizers(*[sites[f"a.{r}"] for r in "qkv"], sites["a.probs"]),
        scale=0.25,
        head_dim=16,
        rel_h=rel[0],
        rel_w=rel[1],
    )
    expected = log_attention(*codes, constants, *tables)

    simulated = SimulatedSites(sites)
    operands = [simulated.activation(f"a.{r}", torch.from_numpy(x)) for x, r in zip((q, k, v), "qkv", strict=True)]
    got = simulated.attention("a", *operands, 0.25, *[None if t is None else torch.from_numpy(t) for t in rel])
    np.testing.assert_array_equal(got.numpy(), expected)

    exact = Sites().attention("a", *operands, 0.25, *[None if t is None else torch.from_numpy(t) for t in rel])
    assert (got - exact).abs().mean() < {4: 0.12, 5: 0.06, 6: 0.03, 8: 0.01}[bits]


@pytest.mark.parametrize(
    "params",
    [
        UniformParams(4, 0.37, 5),
        CagParams(4, (0.11, 0.4, 0.9), (3, 7, 15), tuple(i % 3 for i in range(24))),
        HluqParams(4, 4, 3, 0.013, -0.17),
    ],
)
def test_simulated_activation_equals_the_numpy_quantizer(params):
    x = np.random.default_rng(1).normal(scale=2, size=(50, 24)).astype(np.float32)
    got = SimulatedSites({"s": params}).activation("s", torch.from_numpy(x)).numpy()
    np.testing.assert_array_equal(got, params.fake_quant(x))


def test_values_at_a_threshold_have_the_level_below_it():
    thresholds, levels = np.array([-1.0, 0.5, 2.0], np.float32), np.array([-3.0, 0.0, 1.0, 9.0], np.float32)
    x = np.concatenate([thresholds, np.random.default_rng(0).normal(size=93)]).astype(np.float32).reshape(4, 24)
    got = level_of(torch.from_numpy(x).T, torch.from_numpy(thresholds), torch.from_numpy(levels))
    np.testing.assert_array_equal(got.numpy(), levels[np.searchsorted(thresholds, x.T, side="left")])
