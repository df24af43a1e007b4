"""Which sites are marked, and that marking them changes nothing."""

from __future__ import annotations

import torch
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_ahcq.ir  # noqa: F401  (registers R.ahcq)
from tvm_ahcq.models.description import ATTENTION, FLOAT
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.relay_passes.annotate import annotate, sites
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.torch_exec.executor import TorchExecutor


def annotated(model, name="ahcq"):
    named = name_parameters(model.module, model.function_params)
    return annotate(canonicalise(named), recipe(name), SAM)


def test_sites_go_before_layers_and_attentions_with_a_role_and_take_in_non_linearities(make_family):
    @I.ir_module
    class Canonical:
        @R.function
        def main(
            x: R.Tensor((2, 5, 8), "float32"),
            w: R.Tensor((8, 8), "float32"),
            b: R.Tensor((8,), "float32"),
        ):
            R.func_attr({"ahcq_param_names": ["fc.weight", "fc.bias"]})
            with R.dataflow():
                q = R.ahcq.linear(x, w, b, name="attn.q")
                mixed = R.ahcq.attention(q, x, x, name="attn", scale=0.5)
                hidden = R.ahcq.linear(R.nn.gelu(mixed), w, b, name="mlp")
                y = R.ahcq.linear(hidden, w, b, name="head")
                R.output(y)
            return y

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor((2, 5, 8), "float32"),
            w: R.Tensor((8, 8), "float32"),
            b: R.Tensor((8,), "float32"),
        ):
            R.func_attr({"ahcq_param_names": ["fc.weight", "fc.bias"]})
            with R.dataflow():
                normed = R.ahcq.quantize(x, site="attn.q.input", kind="cag", bits=4)
                projected = R.ahcq.linear(normed, w, b, name="attn.q")
                q = R.ahcq.quantize(projected, site="attn.q", kind="uniform", bits=4)
                k = R.ahcq.quantize(x, site="attn.k", kind="uniform", bits=4)
                v = R.ahcq.quantize(x, site="attn.v", kind="uniform", bits=4)
                mixed = R.ahcq.attention(q, k, v, name="attn", scale=0.5, kind="row_relative", bits=4)
                activated = R.ahcq.quantize(mixed, site="mlp.input", kind="hluq", bits=4, activation="gelu")
                hidden = R.ahcq.linear(activated, w, b, name="mlp")
                y = R.ahcq.linear(hidden, w, b, name="head")
                R.output(y)
            return y

    family = make_family({r"attn\.q": "norm", "attn": ATTENTION, "mlp": "activation", "head": FLOAT})
    tvm.ir.assert_structural_equal(annotate(Canonical, recipe("ahcq"), family), Expected)


def test_published_methods_leave_the_pixels_in_float_and_ours_takes_them_at_eight_bits(tiny_model):
    site = "image_encoder.patch_embed.proj.input"
    assert sites(annotated(tiny_model))[site] == ("pixels", 8)
    assert sites(annotated(tiny_model, "ahcq-no-cag"))[site] == ("pixels", 8)
    for name in ("paper", "ptq4sam", "minmax"):
        assert site not in sites(annotated(tiny_model, name))


def test_every_site_of_the_published_method_is_marked(tiny_model):
    found = sites(annotated(tiny_model))
    del found["image_encoder.patch_embed.proj.input"]
    block = {"attn.qkv.input": "cag", "attn.proj.input": "cag", "mlp.lin1.input": "cag", "mlp.lin2.input": "hluq"}
    block |= {"attn.q": "uniform", "attn.k": "uniform", "attn.v": "uniform", "attn.probs": "row_relative"}
    expected = {f"image_encoder.blocks.{i}.{site}": kind for i in range(2) for site, kind in block.items()}
    expected |= {"image_encoder.neck.0.input": "uniform", "image_encoder.neck.2.input": "uniform"}
    transformer = "mask_decoder.transformer"
    attentions = [f"{transformer}.final_attn_token_to_image"]
    for layer in (f"{transformer}.layers.0", f"{transformer}.layers.1"):
        attentions += [f"{layer}.{a}" for a in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")]
        expected |= {f"{layer}.mlp.lin1.input": "cag", f"{layer}.mlp.lin2.input": "hluq"}
    for name in attentions:
        expected |= {f"{name}.{projection}.input": "cag" for projection in ("q_proj", "k_proj", "v_proj", "out_proj")}
        expected |= {f"{name}.{role}": "uniform" for role in "qkv"}
        expected[f"{name}.probs"] = "row_relative"
    assert {name: kind for name, (kind, _) in found.items()} == expected
    assert {bits for _, bits in found.values()} == {4}


def test_layers_outside_the_method_stay_in_float():
    assert SAM.role("mask_decoder.iou_prediction_head.layers.0").role == "float"
    assert SAM.role("mask_decoder.output_hypernetworks_mlps.0.layers.1").role == "float"
    assert SAM.role("mask_decoder.output_upscaling.0").role == "float"


def test_marked_graphs_compute_the_same_until_quantizers_are_set(tiny_model, prompts):
    model = annotated(tiny_model)
    runs = [
        TorchExecutor(mod, tiny_model.params).run("encode_image", *prompts["encode_image"])
        for mod in (tiny_model.module, model)
    ]
    torch.testing.assert_close(runs[0], runs[1], atol=2e-5, rtol=1e-4)
