"""Relax functions against upstream's torch modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from torch import nn
from tvm import relax

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.export import export_function
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.torch_exec.executor import TorchExecutor

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def executor(model: FloatModel) -> TorchExecutor:
    return TorchExecutor(model.module, model.params)


@pytest.fixture(scope="module")
def embedding(sam: Any) -> torch.Tensor:
    return sam.image_encoder(torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1)))


def prompts(batch: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random pixels and labels 0 or 1."""
    generator = torch.Generator().manual_seed(10 * batch + points)
    return (
        torch.rand(batch, points, 2, generator=generator) * 128,
        torch.randint(0, 2, (batch, points), generator=generator).float(),
    )


def upstream_decode(sam: Any, embedding: torch.Tensor, **given: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """All four masks and predicted IoUs, by upstream's own code."""
    sparse, dense = sam.prompt_encoder(**{"points": None, "boxes": None, "masks": None, **given})
    return sam.mask_decoder.predict_masks(embedding, sam.prompt_encoder.get_dense_pe(), sparse, dense)


def assert_equal(ours: tuple, theirs: tuple) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(torch.as_tensor(a), b, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("window_size", [3, 5, 8])
def test_encoder_equals_upstream_with_padded_and_whole_windows(
    make_sam: Callable[[int], Any], window_size: int
) -> None:
    sam = make_sam(window_size)
    function, _ = export_function(sam, "encode_image")
    image = torch.randn(1, 3, 128, 128)
    ours = TorchExecutor(tvm.IRModule({"encode_image": function}), sam.state_dict()).run("encode_image", image)
    torch.testing.assert_close(ours, sam.image_encoder(image), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(("batch", "points"), [(1, 1), (3, 2), (2, 7)])
def test_points_with_a_padding_point_decode_as_upstream(
    sam: Any, executor: TorchExecutor, embedding: torch.Tensor, batch: int, points: int
) -> None:
    coords, labels = prompts(batch, points)
    theirs = upstream_decode(sam, embedding, points=(coords, labels))
    padded = torch.cat([coords, torch.full((batch, 1, 2), 33.0)], 1), torch.cat([labels, -torch.ones(batch, 1)], 1)
    assert_equal(executor.run("decode", embedding, *padded), theirs)


def test_boxes_decode_as_upstream_without_a_padding_point(
    sam: Any, executor: TorchExecutor, embedding: torch.Tensor
) -> None:
    boxes = prompts(2, 2)[0].reshape(2, 4)
    labels = torch.tensor([[2.0, 3.0]]).expand(2, 2)
    theirs = upstream_decode(sam, embedding, boxes=boxes)
    assert_equal(executor.run("decode", embedding, boxes.reshape(2, 2, 2), labels), theirs)


def test_points_boxes_and_masks_decode_as_upstream(sam: Any, executor: TorchExecutor, embedding: torch.Tensor) -> None:
    coords, labels = prompts(2, 3)
    boxes, masks = prompts(2, 2)[0].reshape(2, 4), torch.randn(2, 1, 32, 32)
    theirs = upstream_decode(sam, embedding, points=(coords, labels), boxes=boxes, masks=masks)
    together = torch.cat([coords, boxes.reshape(2, 2, 2)], 1), torch.cat([labels, torch.tensor([[2.0, 3.0]] * 2)], 1)
    assert_equal(executor.run("decode_mask", embedding, *together, masks), theirs)


def test_a_mask_alone_decodes_as_upstream(sam: Any, executor: TorchExecutor, embedding: torch.Tensor) -> None:
    masks = torch.randn(2, 1, 32, 32)
    theirs = upstream_decode(sam, embedding, masks=masks)
    assert_equal(executor.run("decode_mask", embedding, torch.zeros(2, 0, 2), torch.zeros(2, 0), masks), theirs)


def calls(function: relax.Function) -> list[tuple[relax.Var, relax.Call]]:
    return [
        (b.var, b.value) for block in function.body.blocks for b in block.bindings if isinstance(b.value, relax.Call)
    ]


def test_parameters_are_named_after_the_state_dict(sam: Any, model: FloatModel) -> None:
    state = sam.state_dict()
    for name, names in model.function_params.items():
        given = model.module[name].params
        taken = given[len(given) - len(names) :]
        assert [var.name for var in taken] == [n.replace(".", "_") for n in names]
        assert [tuple(map(int, var.ty.shape.values)) for var in taken] == [tuple(state[n].shape) for n in names]
    assert not any("mask_downscaling" in n for n in model.function_params["decode"])
    learned = {name for name, _ in sam.named_parameters()}
    assert set().union(*model.function_params.values()) == learned


def test_no_weight_ends_up_in_the_module(model: FloatModel) -> None:
    constants = []

    def note(expr: tvm.ir.BaseExpr) -> None:
        if isinstance(expr, tvm.ir.GenericConst):
            constants.append(expr.value.numpy())

    for name in model.function_params:
        relax.analysis.post_order_visit(model.module[name], note)
    assert max(constant.size for constant in constants) == 8 * 8 * 32  # the dense positional encoding


def test_index_tables_are_folded(model: FloatModel) -> None:
    ops = {call.op.name for name in model.function_params for _, call in calls(model.module[name])}
    assert not ops & {"relax.arange", "relax.astype"}


def test_the_image_is_projected_once_for_all_prompts(model: FloatModel) -> None:
    decode = model.module["decode"]
    weights = {var.name: var for var in decode.params}
    used = "mask_decoder_transformer_layers_0_cross_attn_token_to_image_k_proj_weight"
    transposed = next(var for var, call in calls(decode) if call.args[0].same_as(weights[used]))
    product = next(
        var for var, call in calls(decode) if call.op.name == "relax.matmul" and call.args[1].same_as(transposed)
    )
    assert [int(dim) for dim in product.ty.shape.values] == [1, 64, 16]


def build_float(module: tvm.IRModule) -> relax.VirtualMachine:
    """Compile with TVM alone; its default pipeline's RewriteDataflowReshape does not take symbolic shapes."""
    t = relax.transform
    target = tvm.target.Target({"kind": "llvm", "num-cores": 1, "opt-level": 0})
    passes = [
        t.LegalizeOps(),
        t.AnnotateTIROpPattern(),
        t.FoldConstant(),
        t.FuseOps(),
        t.FuseTIR(),
        t.ToNonDataflow(),
        t.RemovePurityChecking(),
        t.CallTIRRewrite(),
        t.StaticPlanBlockMemory(),
        t.LowerAllocTensor(),
        t.KillAfterLastUse(),
        t.LowerRuntimeBuiltin(),
        t.ComputePrimValue(),
        t.VMShapeLower(),
        t.AttachGlobalSymbol(),
    ]
    with target:
        built = tvm.compile(module, target=target, relax_pipeline=tvm.transform.Sequential(passes))
    return relax.VirtualMachine(built, tvm.cpu())


def test_compiled_by_tvm_equals_upstream(sam: Any, model: FloatModel, embedding: torch.Tensor) -> None:
    functions = ("encode_image", "decode")  # decode_mask differs only in where the dense prompt comes from
    machine = build_float(tvm.IRModule({name: model.module[name] for name in functions}))

    def run(name: str, *inputs: torch.Tensor) -> Any:
        weights = [model.params[n] for n in model.function_params[name]]
        return machine[name](*(tvm.runtime.tensor(np.asarray(value)) for value in (*inputs, *weights)))

    image = torch.randn(1, 3, 128, 128)
    assert_equal((run("encode_image", image).numpy(),), (sam.image_encoder(image),))
    for batch, points in ((1, 1), (3, 4)):
        coords, labels = prompts(batch, points)
        padded = torch.cat([coords, torch.zeros(batch, 1, 2)], 1), torch.cat([labels, -torch.ones(batch, 1)], 1)
        theirs = upstream_decode(sam, embedding, points=(coords, labels))
        assert_equal([v.numpy() for v in run("decode", embedding, *padded)], theirs)


def test_a_model_that_cannot_be_exported_is_refused_by_function_name() -> None:
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=16, num_heads=1, global_attn_indexes=(), window_size=2, prompt_dim=32
    )

    class Branching(nn.Module):
        img_size = 64

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return image if image.sum() > 0 else -image

    sam.image_encoder = Branching()
    with pytest.raises(UnsupportedModelError, match="encode_image"):
        export_function(sam, "encode_image")
