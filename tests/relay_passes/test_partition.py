"""Operators on the accelerator: the partitioned module computes what the host alone does, and the report is whole."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.codegen.cost import CostModel
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.relay_passes.offload import Offloaded, partition
from tvm_ahcq.relay_passes.realise import Realised
from tvm_ahcq.relay_passes.rewrite import bindings
from tvm_ahcq.runtime.offload import ACCELERATOR, HOST, OffloadReport, condensed, summary


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
def test_layers_of_the_decoder_are_offloaded_for_any_number_of_prompts_and_points(part, function):
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
    assert len(over_tokens) == 22  # all others
    assert not calls(part.module, function, "grouped_linear")
    assert len(calls(part.module, function, "log_attention")) == 7


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
        places = part.report.of(function)
        merged = condensed(places)
        assert len(merged) < len(places) if function == "decode" else len(merged) <= len(places)
        for sum_of in (lambda place: place.macs, lambda place: place.cycles, lambda place: place.count):
            assert sum(map(sum_of, merged)) == sum(map(sum_of, places))
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
    refused = [place for place in auto.of("encode_image") if "not worth it" in place.reason]
    assert refused and all(place.cycles > 0 and place.bytes > 0 for place in refused)
    refused = [place for place in auto.of("decode") if "not worth it for a prompt" in place.reason]
    assert refused and all(place.batched and place.cycles > 0 and place.bytes > 0 for place in refused)


def test_an_unknown_configuration_or_policy_is_refused(realised):
    with pytest.raises(DeviceError, match="'abacus'; there are sim_4x4"):
        partition(realised, "abacus", SAM)
    with pytest.raises(DeviceError, match="offload is 'some'"):
        CostModel.named("some")


def test_lowering_is_skipped_where_weights_are_not_known(realised):
    from tvm_ahcq.relay_passes.partition import partition_for_ahcq

    report = partition_for_ahcq(realised.module, "sim_4x4", SAM).report
    assert not report.offloaded()
    reasons = {place.reason for place in report.of("encode_image") if place.kind in ("linear", "attention")}
    assert reasons & {"its weights are not known when it is compiled", "floating point"}
    assert np.all([place.where == HOST for place in report.decisions])
