"""Two streams in step: each alone computes what a plain run does, and a change of a layer reaches what follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.relay_passes.annotate import annotate
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.fake_quant import FakeQuantSites
from tvm_ahcq.torch_exec.lockstep import Lockstep, Streams, layer_steps
from tvm_ahcq.torch_exec.simulate import Sites


class _Float(FakeQuantSites):
    """Layers can be changed, activations stay in float."""

    def activation(self, site, x, activation="identity"):
        return Sites.activation(self, site, x, activation)

    def attention(self, *arguments):
        return Sites.attention(self, *arguments)


@pytest.fixture(scope="module")
def executor() -> TorchExecutor:
    torch.manual_seed(0)
    sam = build_sam_vit_t(
        image_size=64, depth=2, embed_dim=32, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
    )
    model = from_module(sam.requires_grad_(False), "tiny")
    module = annotate(canonicalise(name_parameters(model.module, model.function_params)), recipe("ahcq"), SAM)
    return TorchExecutor(module, model.params)


@pytest.fixture
def images() -> list[np.ndarray]:
    return list(np.random.default_rng(0).normal(size=(2, 1, 3, 64, 64)).astype(np.float32))


def test_both_streams_compute_what_a_plain_run_does(executor, images):
    lockstep = Lockstep(executor, "encode_image", Streams(Sites(), _Float({})), [((x,), (x,)) for x in images])
    for image, (a, b) in zip(images, lockstep.run(), strict=True):
        assert torch.equal(a, b) and torch.equal(a, executor.run("encode_image", image))


def test_a_visitor_sees_every_layer_before_it_runs_and_what_it_changes_reaches_the_rest(executor, images):
    sites, seen = _Float({}), {}
    lockstep = Lockstep(executor, "encode_image", Streams(Sites(), sites), [((x,), (x,)) for x in images])

    def visit(name, inputs):
        seen[name] = max(float((a - b).abs().max()) for a, b in inputs)
        if name == "image_encoder.blocks.0.mlp.lin2":
            weight = executor.params[f"{name}.weight"]
            sites.layers[name] = torch.zeros_like(weight), None

    results = lockstep.run(visit)
    assert list(seen) == list(layer_steps(lockstep.program.steps))
    assert seen["image_encoder.blocks.0.mlp.lin2"] == 0 and seen["image_encoder.blocks.1.attn.qkv"] > 1e-3
    for image, (a, b) in zip(images, results, strict=True):
        assert torch.equal(a, executor.run("encode_image", image)) and not torch.equal(a, b)


def test_a_run_can_be_made_in_parts(executor, images):
    def begin():
        return Lockstep(executor, "encode_image", Streams(Sites(), Sites()), [((images[0],), (images[1],))])

    parts, whole = begin(), begin()
    for first in range(0, len(parts.program.steps), 50):
        parts.advance(first, first + 50)
    ((a, b),) = whole.run()
    assert torch.equal(parts.program.result(parts.runs[0][0]), a)
    assert torch.equal(parts.program.result(parts.runs[0][1]), b)
