"""The gate: operators that nobody described, or that no pass can quantize, stop the compiler with a list of all."""

from __future__ import annotations

import re

import pytest
import tvm
from tvm import relax
from tvm.ir import Op
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_ahcq.ir  # noqa: F401  (registers R.ahcq)
from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.models.description import ATTENTION, FLOAT, PIXELS
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.relay_passes.annotate import annotate, layers, sites
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.coverage import ATTENTIONS, CONVOLUTIONS, POOLINGS, PRODUCTS, Status, coverage
from tvm_ahcq.relay_passes.rewrite import name_parameters


@pytest.fixture(scope="module")
def hiera() -> tvm.IRModule:
    """A block of Hiera under upstream's names: pooled queries, scaled_dot_product_attention, MLP as ``layers``."""
    import torch
    from torch import nn

    from tvm_ahcq.models.export import export_module

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(16, 48), nn.Linear(16, 16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (part.reshape(1, 16, 2, 8) for part in self.qkv(x).reshape(1, 16, 48).split(16, -1))
            q = nn.functional.max_pool2d(q.reshape(1, 4, 4, 16).permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)
            q, k, v = q.reshape(1, 4, 2, 8).transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.proj(mixed.transpose(1, 2).reshape(1, 2, 2, 16))

    class Mlp(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(16, 32), nn.Linear(32, 16)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layers[1](nn.functional.gelu(self.layers[0](x)))

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.norm2, self.attn, self.mlp = nn.LayerNorm(16), nn.LayerNorm(16), Attention(), Mlp()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.attn(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.blocks = nn.ModuleList([Block()])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.blocks[0](x)

    function, names = export_module(Encoder(), "encode", {"x": torch.zeros(1, 4, 4, 16)}, {})
    return canonicalise(name_parameters(tvm.IRModule({"encode": function}), {"encode": names}))


def test_a_hiera_block_without_roles_is_refused_with_the_list_of_all_its_layers(hiera):
    with pytest.raises(UnsupportedModelError) as error:
        annotate(hiera, recipe(), SAM)
    assert str(error.value) == (
        "6 of the model's operators have no valid role in the description of SAM:\n"
        "  blocks.0.attn.qkv: ahcq.linear of shape [1, 4, 4, 48] in encode, no role\n"
        "  encode.max_pool2d: nn.max_pool2d of shape [1, 16, 2, 2] in encode, no role\n"
        "  blocks.0.attn: ahcq.attention of shape [1, 2, 4, 8] in encode, no role\n"
        "  blocks.0.attn.proj: ahcq.linear of shape [1, 2, 2, 16] in encode, no role\n"
        "  blocks.0.mlp.layers.0: ahcq.linear of shape [1, 2, 2, 32] in encode, no role\n"
        "  blocks.0.mlp.layers.1: ahcq.linear of shape [1, 2, 2, 16] in encode, no role\n"
        "Add a role for each name to the roles of the family: a kind of site to quantize it, or 'float' with a reason "
        "if it stays in floating point."
    )


def test_attention_may_stay_in_float_by_choice(hiera, make_family):
    roles = {r"blocks\.0\.(attn\.(qkv|proj)|mlp\.layers\.\d)": "norm", r".*max_pool2d|blocks\.0\.attn": FLOAT}
    family = make_family(roles)
    found = coverage(annotate(hiera, recipe(), family), recipe(), family)
    assert [entry.name for entry in found.float_layers] == ["encode.max_pool2d", "blocks.0.attn"]
    assert len(found.quantized) == 4 and not found.missing


def function_of(build, shape: tuple[int, ...], **weights: tuple[int, ...]) -> tvm.IRModule:
    """A function `main` of one input of `shape` and of named weights, which returns ``build(x, *weights)``."""
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "float32"))
    params = [relax.Var(name, relax.TensorType(size, "float32")) for name, size in weights.items()]
    with builder.function("main", [x, *params]):
        with builder.dataflow():
            result = builder.emit_output(build(x, *params))
        builder.emit_func_output(result)
    return canonicalise(name_parameters(builder.get(), {"main": [f"stem.{name}.weight" for name in weights]}))


IMAGE = (1, 8, 16, 16)
CONVOLUTIONS_IN_FLOAT = {
    "overlapping patches": (lambda x, w: relax.op.nn.conv2d(x, w, strides=2, padding=1), (4, 8, 3, 3)),
    "strided": (lambda x, w: relax.op.nn.conv2d(x, w, strides=4, padding=3), (4, 8, 7, 7)),
    "depthwise": (lambda x, w: relax.op.nn.conv2d(x, w, padding=3, groups=8), (8, 1, 7, 7)),
    "dilated": (lambda x, w: relax.op.nn.conv2d(x, w, strides=2, dilation=2), (4, 8, 2, 2)),
    "of another stride across": (lambda x, w: relax.op.nn.conv2d(x, w, strides=[2, 1]), (4, 8, 2, 2)),
    "not square": (lambda x, w: relax.op.nn.conv2d(x, w, strides=2), (4, 8, 2, 3)),
    "with pixels left over": (lambda x, w: relax.op.nn.conv2d(x, w, strides=3), (4, 8, 3, 3)),
    "transposed in groups": (lambda x, w: relax.op.nn.conv2d_transpose(x, w, strides=2, groups=2), (8, 4, 2, 2)),
    "transposed": (lambda x, w: relax.op.nn.conv2d_transpose(x, w, strides=2), (8, 4, 3, 3)),
}


@pytest.mark.parametrize("form", CONVOLUTIONS_IN_FLOAT)
@pytest.mark.parametrize("role", [None, "linear", PIXELS])
def test_a_convolution_that_no_pass_knows_is_refused_whatever_its_role(make_family, form, role):
    build, shape = CONVOLUTIONS_IN_FLOAT[form]
    family = make_family({} if role is None else {r"stem\.conv": role})
    with pytest.raises(UnsupportedModelError, match=r"  stem\.conv: (nn\.conv2d|ahcq\.linear)"):
        annotate(function_of(build, IMAGE, conv=shape), recipe(), family)
    kept = make_family({r"stem\.conv": FLOAT})
    found = coverage(annotate(function_of(build, IMAGE, conv=shape), recipe(), kept), recipe(), kept)
    assert [(entry.name, entry.status) for entry in found.entries] == [("stem.conv", Status.FLOAT)]


def test_attention_in_a_form_that_no_pass_knows_is_refused_whatever_its_role(make_family):
    def attention(x: relax.Expr, weight: relax.Expr) -> relax.Expr:
        query = relax.op.matmul(x, relax.op.permute_dims(weight))
        return relax.op.nn.attention(query, x, x)

    module = function_of(attention, IMAGE, q=(16, 16))
    family = make_family({r"stem\.q": FLOAT, r"stem": ATTENTION})
    with pytest.raises(UnsupportedModelError, match=r"^1 of the model's operators") as error:
        annotate(module, recipe(), family)
    assert "stem: nn.attention of shape [1, 8, 16, 16] in main, role 'attention', but" in str(error.value)


UNNAMED = {
    "main.max_pool2d": relax.op.nn.max_pool2d,
    "main.avg_pool2d": relax.op.nn.avg_pool2d,
    "main.adaptive_avg_pool2d": relax.op.nn.adaptive_avg_pool2d,
    "main.matmul": lambda x: relax.op.matmul(x, x),
    "main.einsum": lambda x: relax.op.einsum((x, x), "bchw,bcwk->bchk"),
    "main.softmax": relax.op.nn.softmax,
}


@pytest.mark.parametrize("name", UNNAMED)
def test_poolings_and_products_of_computed_operands_are_named_after_function_and_operator(make_family, name):
    module = function_of(UNNAMED[name], IMAGE)
    with pytest.raises(UnsupportedModelError, match=re.escape(f"  {name}: ")):
        annotate(module, recipe(), make_family({}))
    family = make_family({re.escape(name): FLOAT})
    assert [entry.name for entry in coverage(annotate(module, recipe(), family), recipe(), family).entries] == [name]


PARAMETRIC = {
    "without bias": lambda x, w: relax.op.matmul(x, relax.op.permute_dims(w)),
    "weight on the left": lambda x, w: relax.op.matmul(w, x),
    "scaled weight": lambda x, w: relax.op.matmul(x, relax.op.multiply(w, relax.const(2.0, "float32"))),
    "einsum": lambda x, w: relax.op.einsum((x, w), "bchw,wk->bchk"),
}


@pytest.mark.parametrize("form", PARAMETRIC)
def test_an_unknown_layer_is_refused_by_the_name_of_its_module(make_family, form):
    module = function_of(PARAMETRIC[form], IMAGE, fc=(16, 16))
    for roles in ({}, {r"stem\.fc": "norm"}):
        with pytest.raises(UnsupportedModelError, match=r"  stem\.fc: \w+ of shape \[1, 8, 16, 16\] in main"):
            annotate(module, recipe(), make_family(roles))


def test_unknown_softmax_attention_is_named_after_the_module_of_its_query(make_family):
    @I.ir_module
    class Module:
        @R.function
        def main(x: R.Tensor((5, 8), "float32"), w: R.Tensor((8, 8), "float32"), b: R.Tensor((8,), "float32")):
            R.func_attr({"ahcq_param_names": ["block.attn.q.weight", "block.attn.q.bias"]})
            with R.dataflow():
                q = R.ahcq.linear(x, w, b, name="block.attn.q")
                masked = R.add(R.matmul(q, R.permute_dims(x)), R.const(-1.0, "float32"))
                y = R.matmul(R.nn.softmax(masked, axis=-1), x)
                R.output(y)
            return y

    family = make_family({r"block\.attn\.q": "norm", r"main\.matmul": FLOAT, r"block\.attn": ATTENTION})
    with pytest.raises(UnsupportedModelError, match=r"^1 of .*\n  block\.attn: nn\.softmax of shape \[5, 5\]"):
        annotate(canonicalise(Module), recipe(), family)


def test_whole_models_leave_nothing_uncovered(tiny_model):
    canonical = canonicalise(name_parameters(tiny_model.module, tiny_model.function_params))
    annotated = annotate(canonical, recipe(), SAM)
    found = coverage(annotated, recipe(), SAM)
    assert not found.missing
    attentions = {site.removesuffix(".probs") for site in sites(annotated) if site.endswith(".probs")}
    assert {entry.name for entry in found.quantized} == set(layers(annotated)) | attentions
    heads = r"mask_decoder\.(output|iou).*|prompt_encoder\.mask_downscaling\.\d|decode(_mask)?\.matmul"
    assert all(re.fullmatch(heads, entry.name) for entry in found.float_layers)
    published = coverage(annotate(canonical, recipe("paper"), SAM), recipe("paper"), SAM)
    (pixels,) = set(published.float_layers) - set(found.float_layers)
    assert (pixels.name, pixels.role, published.missing) == ("image_encoder.patch_embed.proj", PIXELS, ())


def test_the_gate_knows_every_operator_of_tvm_that_multiplies_or_pools():
    multiplies = re.compile(r"relax\.(?!grad\.).*(conv\d|_pool|attention|matmul|einsum|outer|\.softmax|\.linear)")
    names = {name for name in Op.list_op_names() if multiplies.match(name)}
    realised = {"relax.ahcq.grouped_linear", "relax.ahcq.log_attention", "relax.ahcq.hypernet_matmul"}
    assert names - realised == {*PRODUCTS, *CONVOLUTIONS, *ATTENTIONS, *POOLINGS} & set(Op.list_op_names())
