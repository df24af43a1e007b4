"""Operators on the accelerator: the partitioned module computes what the host alone does, and the report is whole."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm.script import ir as I
from tvm.script import relax as R

import tvm_ahcq.ir  # noqa: F401  (R.ahcq)
from tvm_ahcq.codegen.cost import CostModel
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.relay_passes.offload import Offloaded, partition
from tvm_ahcq.relay_passes.partition import partition_for_ahcq
from tvm_ahcq.relay_passes.realise import Realised
from tvm_ahcq.relay_passes.rewrite import bindings
from tvm_ahcq.runtime.offload import ACCELERATOR, HOST, OffloadReport, condensed, summary
from tvm_ahcq.runtime.weights import QLinearWeight


@pytest.fixture(scope="module")
def realised(quantized) -> Realised:
    return quantized.realise("rows")


@pytest.fixture(scope="module")
def part(realised) -> Offloaded:
    return partition(realised, "sim_4x4", SAM, "all")


def calls(module, function: str, name: str) -> list[str]:
    found = [binding.value for binding in bindings(module[function])]
    return [str(call.attrs["name"]) for call in found if is_op(call, f"relax.ahcq.{name}")]


def test_every_layer_and_four_bit_attention_of_the_encoder_is_offloaded_or_has_a_reason(part, quantized):
    encoder = part.report.of("encode_image")
    taken = [place.name for place in encoder if place.where == ACCELERATOR]
    assert {
        "image_encoder.patch_embed.proj",
        "image_encoder.blocks.0.mlp.lin1",
        "image_encoder.blocks.0.mlp.lin2",
        "image_encoder.neck.0",
        "image_encoder.neck.2",
    } <= set(taken)
    assert not calls(part.module, "encode_image", "grouped_linear")
    attentions = [place for place in encoder if place.kind == "attention"]
    if quantized.table.recipe.bits_activations == 4:
        assert {place.where for place in attentions} == {ACCELERATOR}
        assert not calls(part.module, "encode_image", "log_attention")
        assert part.report.share("encode_image") == 1.0
    else:
        assert len(calls(part.module, "encode_image", "log_attention")) == len(attentions) == 2
        reason = "8-bit codes: on the accelerator, only linear layers take more than 4 bits"
        assert {place.reason for place in attentions} == {reason}
    for place in part.report.decisions:
        assert (place.where == HOST) == bool(place.reason), place
        assert (place.where == ACCELERATOR) == bool(place.symbol) == (place.cycles > 0), place


@pytest.mark.parametrize("function", ["decode", "decode_mask"])
def test_layers_of_the_decoder_are_offloaded_for_any_number_of_prompts_and_points(part, realised, function):
    own = {place.name for place in part.report.offloaded(function) if place.batched and place.repeats == 1}
    over_tokens = {place.name for place in part.report.offloaded(function) if place.repeats > 1}
    once = {place.name for place in part.report.offloaded(function) if not place.batched}
    cross = "mask_decoder.transformer.layers.{}.cross_attn_{}"
    last = "mask_decoder.transformer.final_attn_token_to_image"
    over_image = {
        cross.format(1, "token_to_image.k_proj"),
        cross.format(1, "token_to_image.v_proj"),
        cross.format(1, "image_to_token.q_proj"),
        cross.format(1, "image_to_token.out_proj"),
        cross.format(0, "image_to_token.out_proj"),
        f"{last}.k_proj",
        f"{last}.v_proj",
    }
    shared = {cross.format(0, f"{name}_proj") for name in ("token_to_image.k", "token_to_image.v", "image_to_token.q")}
    # the mask is added to the image: nothing of it is then the same for all prompts
    both = over_image | shared if function == "decode_mask" else over_image
    assert own == both
    assert once == (over_image | shared) - both
    assert over_tokens == set(calls(realised.module, function, "grouped_linear")) - over_image - shared
    assert not calls(part.module, function, "grouped_linear")
    attentions = calls(part.module, function, "log_attention")
    assert attentions and attentions == calls(realised.module, function, "log_attention")


def test_every_matrix_product_of_the_decoder_has_its_own_line_work_and_reason(part, realised):
    for function in ("decode", "decode_mask"):
        kinds = ("grouped_linear", "linear", "log_attention")
        named = [name for kind in kinds for name in calls(realised.module, function, kind)]
        places = [place for place in part.report.of(function) if place.kind in ("linear", "attention", "matmul")]
        assert sorted(named) == sorted(place.name for place in places if place.kind != "matmul")
        assert all(place.count == 1 and place.macs > 0 for place in places)
        assert [place.name for place in places if place.kind == "matmul"] == [
            "matmul [B, N, 2] x [2, 16]",
            "matmul [B, 4, 4] x [B, 4, 1024]",
        ]
        tokens = "its number of tokens depends on the number of points"
        reasons = {place.name.removeprefix("mask_decoder."): place.reason for place in places}
        self_attention = reasons["transformer.layers.0.self_attn"]
        assert self_attention == tokens or self_attention.startswith("8-bit codes")
        assert reasons["output_upscaling.0"] == "floating point"


def test_work_is_counted_for_one_prompt_of_one_click(part):
    work = {place.name.removeprefix("mask_decoder.transformer."): place for place in part.report.of("decode")}
    tokens, channels, pixels = 5 + 2, 32, 64  # tokens: of the model, and a click with its padding
    attention = work["layers.1.cross_attn_image_to_token"]
    assert (attention.macs, attention.batched) == (2 * tokens * pixels * channels // 2, True)
    layer = work["layers.0.mlp.lin2"]
    assert (layer.macs, layer.batched) == (tokens * channels * 512, True)
    assert layer.repeats == (tokens if layer.where == ACCELERATOR else 1)
    assert not any(place.batched for place in part.report.of("encode_image"))


def test_offloaded_weights_are_in_the_runtime_module_alone(part, realised):
    before, after = realised.function_params["encode_image"], part.function_params["encode_image"]
    assert set(after) <= set(before)
    gone = set(before) - set(after)
    assert {"image_encoder.patch_embed.proj.weight", "image_encoder.blocks.0.attn.qkv.weight"} <= gone
    assert not any("norm" in name for name in gone)


def test_the_report_survives_storage_and_is_condensed_without_losing_work(part):
    assert OffloadReport.from_dict(part.report.to_dict()) == part.report
    for function in ("encode_image", "decode"):
        decisions, offloaded = part.report.of(function), part.report.offloaded(function)
        merged = condensed(decisions)
        on_host = {(each.kind, each.reason, each.batched) for each in decisions if each.where == HOST}
        assert len(merged) == len(offloaded) + len(on_host)
        assert [each for each in merged if each.where == ACCELERATOR] == offloaded
        for sum_of in (lambda place: place.macs, lambda place: place.cycles, lambda place: place.count):
            assert sum(map(sum_of, merged)) == sum(map(sum_of, decisions))
    assert "sim_4x4" in summary(part.report)


def test_a_chained_mlp_is_one_operator_with_less_to_move(part, realised, quantized):
    chained = partition(realised, "sim_4x4", SAM, "all", chain=True).report
    name = "image_encoder.blocks.0.mlp.lin1"
    if quantized.table.recipe.bits_activations > 4:  # what is between the layers has 4 bits: each goes alone
        assert chained == part.report
        return
    (together,) = [place for place in chained.offloaded() if place.name == f"{name} -> lin2"]
    apart = [place for place in part.report.offloaded() if place.name.startswith("image_encoder.blocks.0.mlp.")]
    assert together.kind == "mlp" and len(apart) == 2
    assert together.macs == sum(place.macs for place in apart)
    assert together.bytes < sum(place.bytes for place in apart) / 2


def test_what_is_not_worth_moving_stays_on_the_host(realised):
    auto = partition(realised, "sim_4x4", SAM, "auto").report
    refused = [place for place in auto.of("encode_image") if place.reason.startswith("cost model: accelerator")]
    assert refused and all(place.cycles > 0 and place.bytes > 0 for place in refused)
    refused = [place for place in auto.of("decode") if place.reason.endswith(", per prompt")]
    assert refused and all(place.batched and place.cycles > 0 and place.bytes > 0 for place in refused)


def test_an_unknown_configuration_or_policy_is_refused(realised):
    with pytest.raises(DeviceError, match="'abacus'; there are sim_4x4"):
        partition(realised, "abacus", SAM)
    with pytest.raises(DeviceError, match="offload is 'some'"):
        CostModel.named("some")


def test_lowering_is_skipped_where_weights_are_not_known(realised):
    report = partition_for_ahcq(realised.module, "sim_4x4", SAM).report
    assert report.decisions and not report.offloaded()
    layers = calls(realised.module, "encode_image", "grouped_linear")
    reasons = {decision.name: decision.reason for decision in report.of("encode_image")}
    unknown, not_codes = "its weights are not known at compile time", "its input is not quantized to codes"
    assert layers and {reasons[name] for name in layers} == {unknown, not_codes}


def linear_weight() -> QLinearWeight:
    """16 outputs of one group of 16 channels."""
    codes = np.random.default_rng(0).integers(0, 16, (16, 16)).astype(np.uint8)
    return QLinearWeight(
        codes,
        4,
        scale=np.ones(16, np.float32),
        zero_point=np.full(16, 8, np.uint8),
        index=np.arange(16, dtype=np.int32),
        group_sizes=(16,),
        group_scale=np.ones(1, np.float32),
        group_zero_point=np.full(1, 7, np.int32),
        layout="rows",
    )


def test_an_offloaded_layer_is_a_call_and_its_parameters_are_gone_but_for_those_that_others_use():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((8, 16), "float32"),
            other: R.Tensor((8, 16), "uint8"),
            index: R.Tensor((16,), "int32"),
            limits: R.Tensor((2,), "int32"),
            scale: R.Tensor((1,), "float32"),
            zero: R.Tensor((1,), "int32"),
            packed: R.Tensor((16, 16), "int8"),
            bounds: R.Tensor((2,), "int32"),
            multiplier: R.Tensor((1, 16), "float32"),
            correction: R.Tensor((1, 16), "int32"),
            bias: R.Tensor((16,), "float32"),
            shared: R.Tensor((16,), "float32"),
        ) -> R.Tensor((8, 16), "float32"):
            R.func_attr(
                {
                    "num_input": 2,
                    "ahcq_param_names": [
                        "index",
                        "limits",
                        "scale",
                        "zero",
                        "packed",
                        "bounds",
                        "multiplier",
                        "correction",
                        "bias",
                        "shared",
                    ],
                }
            )
            with R.dataflow():
                codes = R.ahcq.encode_affine(x, index, limits, scale, zero, site="site", bits=4, identity=True)
                first = R.ahcq.grouped_linear(
                    codes, packed, bounds, multiplier, correction, bias, name="first", layout="rows", weight_bits=4
                )
                second = R.ahcq.grouped_linear(
                    codes, packed, bounds, multiplier, correction, shared, name="second", layout="rows", weight_bits=4
                )
                total = R.add(R.add(first, second), shared)
                R.output(total)
            return total

    @I.ir_module
    class Expected:
        @R.function
        def main(
            x: R.Tensor((8, 16), "float32"),
            other: R.Tensor((8, 16), "uint8"),
            index: R.Tensor((16,), "int32"),
            limits: R.Tensor((2,), "int32"),
            scale: R.Tensor((1,), "float32"),
            zero: R.Tensor((1,), "int32"),
            shared: R.Tensor((16,), "float32"),
        ) -> R.Tensor((8, 16), "float32"):
            R.func_attr({"num_input": 2, "ahcq_param_names": ["index", "limits", "scale", "zero", "shared"]})
            with R.dataflow():
                codes = R.ahcq.encode_affine(x, index, limits, scale, zero, site="site", bits=4, identity=True)
                first = R.call_dps_packed("ahcq_main_first", (codes,), out_ty=R.Tensor((8, 16), "float32"))
                second = R.call_dps_packed("ahcq_main_second", (codes,), out_ty=R.Tensor((8, 16), "float32"))
                total = R.add(R.add(first, second), shared)
                R.output(total)
            return total

    params = {"packed": linear_weight(), "bias": np.zeros(16, np.float32), "shared": np.ones(16, np.float32)}
    partitioned = partition_for_ahcq(Before, "sim_4x4", SAM, params, CostModel.named("all"))
    tvm.ir.assert_structural_equal(partitioned.module["main"], Expected["main"])
    (module,) = partitioned.module.attrs["external_mods"]
    assert [decision.symbol for decision in partitioned.report.offloaded()] == ["ahcq_main_first", "ahcq_main_second"]
    assert all(module.implements_function(decision.symbol) for decision in partitioned.report.offloaded())


def test_a_layer_without_codes_as_its_input_stays_as_it_is():
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((8, 16), "uint8"),
            packed: R.Tensor((16, 16), "int8"),
            bounds: R.Tensor((2,), "int32"),
            multiplier: R.Tensor((1, 16), "float32"),
            correction: R.Tensor((1, 16), "int32"),
            bias: R.Tensor((16,), "float32"),
        ) -> R.Tensor((8, 16), "float32"):
            R.func_attr({"num_input": 1, "ahcq_param_names": ["packed", "bounds", "multiplier", "correction", "bias"]})
            with R.dataflow():
                y = R.ahcq.grouped_linear(
                    x, packed, bounds, multiplier, correction, bias, name="layer", layout="rows", weight_bits=4
                )
                R.output(y)
            return y

    params = {"packed": linear_weight(), "bias": np.zeros(16, np.float32)}
    partitioned = partition_for_ahcq(Before, "sim_4x4", SAM, params, CostModel.named("all"))
    tvm.ir.assert_structural_equal(partitioned.module, Before)
    (decision,) = partitioned.report.decisions
    assert (decision.where, decision.reason) == (HOST, "its input is not quantized to codes")


@pytest.mark.parametrize("row_relative", [0, 1])
def test_attention_is_offloaded_if_its_probabilities_are_row_relative(row_relative):
    @I.ir_module
    class Before:
        @R.function
        def main(
            x: R.Tensor((2, 8, 16), "float32"),
            index: R.Tensor((16,), "int32"),
            limits: R.Tensor((2,), "int32"),
            scale: R.Tensor((1,), "float32"),
            zero: R.Tensor((1,), "int32"),
            constants: R.Tensor((9,), "int32"),
            thresholds: R.Tensor((15,), "int32"),
            table: R.Tensor((16,), "uint8"),
            out_scale: R.Tensor((1,), "float32"),
        ) -> R.Tensor((2, 8, 16), "float32"):
            names = ["index", "limits", "scale", "zero", "constants", "thresholds", "table", "out_scale"]
            R.func_attr({"num_input": 1, "ahcq_param_names": names})
            with R.dataflow():
                codes = R.ahcq.encode_affine(x, index, limits, scale, zero, site="site", bits=4, identity=True)
                y = R.ahcq.log_attention(
                    codes, codes, codes, constants, thresholds, table, out_scale, name="attn", row_relative=row_relative
                )
                R.output(y)
            return y

    params = {
        "constants": np.array([7, 6, 9, 0, 0, 2000, 0, 0, 12], np.int32),
        "thresholds": np.arange(9000, 0, -600, np.int32),
        "table": np.arange(0, 256, 17, np.uint8),
        "out_scale": np.full(1, 0.31, np.float32),
    }
    (decision,) = [
        each
        for each in partition_for_ahcq(Before, "sim_4x4", SAM, params, CostModel.named("all")).report.decisions
        if each.kind == "attention"
    ]
    if row_relative:
        assert (decision.where, decision.reason) == (ACCELERATOR, "")
    else:
        assert decision.where == HOST and "quantize its probabilities with 'row_relative'" in decision.reason
