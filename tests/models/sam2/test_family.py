"""SAM 2 from calibration to a bundle: every layer has a role, and compiled results are the simulation's."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm import relax

import tvm_ahcq as ahcq
from tvm_ahcq.api import CompiledModel, QuantizedModel
from tvm_ahcq.evaluate.sensitivity.measure import measure
from tvm_ahcq.evaluate.sensitivity.probes import Probe
from tvm_ahcq.models.description import DECODE, ENCODE
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import timing_of
from tvm_ahcq.models.sam2.predictor import Sam2ImagePredictor
from tvm_ahcq.relay_passes.annotate import sites
from tvm_ahcq.relay_passes.coverage import coverage
from tvm_ahcq.relay_passes.lower import legalise as legalise_module
from tvm_ahcq.relay_passes.lower.build import generate_code, lower
from tvm_ahcq.runtime.offload import ACCELERATOR, OffloadReport
from tvm_ahcq.runtime.weights import QLinearWeight, expand
from tvm_ahcq.target import resolve_target


@pytest.fixture(scope="module")
def qmodel(model: FloatModel, pictures: list[np.ndarray]) -> QuantizedModel:
    quick = replace(ahcq.recipe("ahcq", bits=4), rounding="nearest", conditioning="none")
    return ahcq.quantize(model, pictures[:2], quick)


def test_every_linear_layer_and_attention_of_encoder_and_decoder_is_a_site(qmodel: QuantizedModel) -> None:
    report = coverage(qmodel.annotated, qmodel.table.recipe, qmodel.model.family)
    assert report.missing == ()
    in_float = {entry.name for entry in report.float_layers}
    heads = ("output_", "_head", "obj_ptr_proj", "sam_prompt_encoder", "max_pool2d", "matmul")
    assert all(any(part in name for part in heads) or name == "image_encoder.trunk" for name in in_float)
    # the patch embedding; 6 blocks of 4 layers and 4 operands, 3 that widen, 2 laterals and 2 of high resolution;
    # 7 attentions of 4 layers and 4 operands, and 2 MLPs
    assert qmodel.sites == (1 + 6 * 8 + 3 + 2 + 2 + 7 * 8 + 2 * 2,) * 2
    assert len(sites(qmodel.annotated)) == qmodel.sites[0]


@pytest.fixture(scope="module")
def compiled(qmodel: QuantizedModel) -> CompiledModel:
    """For the host and for the accelerator, which takes every product that it can."""
    return ahcq.compile(qmodel, target="generic", accelerator="sim_4x4", offload="all")


def test_every_product_is_offloaded_or_has_a_reason(compiled: CompiledModel) -> None:
    report = OffloadReport.from_dict(compiled.manifest.accelerator)
    encoder = report.of("encode_image")
    products = [each for each in encoder if each.macs and each.reason != "floating point"]
    # the patch embedding; 6 blocks of 4 layers and an attention, 3 that widen, 2 laterals and 2 of high resolution
    assert len(products) == 1 + 6 * 5 + 3 + 2 + 2 and all(each.where == ACCELERATOR for each in products)
    assert all(each.reason for each in report.decisions if each.where != ACCELERATOR)


@pytest.mark.parametrize("device", ["host", "fsim"])
def test_compiled_results_are_the_simulations(
    qmodel: QuantizedModel, compiled: CompiledModel, pictures: list[np.ndarray], tmp_path: Path, device: str
) -> None:
    manifest = replace(compiled.manifest, accelerator=None) if device == "host" else compiled.manifest
    replace(compiled, manifest=manifest).save(tmp_path / "tiny2.ahcq")
    predictor, simulated = ahcq.load(tmp_path / "tiny2.ahcq"), qmodel.fake_quant_predictor()
    assert isinstance(predictor, Sam2ImagePredictor)
    results = []
    for each in (predictor, simulated):
        each.set_image(pictures[0])
        box, click = np.array([[10, 20, 60, 70], [5, 5, 30, 40]]), np.array([[40, 30]])
        low = each.predict(click, np.array([1]))[2]
        refined = each.predict(click, np.array([1]), mask_input=low[:1], return_logits=True)
        results.append((each.get_image_embedding(), *each.predict(box=box, return_logits=True), *refined))
    for mine, expected in zip(*results, strict=True):
        np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert all(check.passed for check in predictor.session.verify())


def test_the_decoder_takes_three_of_the_four_outputs_of_the_encoder(model: FloatModel) -> None:
    assert model.family.passed_outputs(ENCODE, DECODE) == (0, 1, 2)


def test_sensitivity_is_measured_of_encoder_and_decoder(qmodel: QuantizedModel, pictures: list[np.ndarray]) -> None:
    probe = Probe(pictures[2], np.float32([[30, 40], [90, 70]]), np.float32([[10, 20, 80, 100]]))
    found = measure(qmodel, [probe], effect="blocks")
    assert len(found.sites) == qmodel.sites[0] and 0 < found.total.logits < np.inf
    alone = {effect.unit.name: effect.logits for effect in found.effects}
    assert {"image_encoder.trunk.blocks.4", "sam_mask_decoder.transformer.layers.1"} <= set(alone)
    assert all(0 < change < np.inf for change in alone.values())


def test_the_stage_that_encodes_returns_the_embedding_first(qmodel: QuantizedModel, pictures: list[np.ndarray]) -> None:
    session = qmodel.fake_quant_session()
    stages = timing_of(qmodel.model.spec).stages(session, pictures[0], np.float32([70, 40]))
    predictor = qmodel.fake_quant_predictor()
    predictor.set_image(pictures[0])
    np.testing.assert_array_equal(stages["encode"]()[0], predictor.get_image_embedding())
    stages["whole"]()


def test_heads_are_fused_and_queries_are_pooled_as_codes(qmodel: QuantizedModel) -> None:
    target = resolve_target("avx2")
    realised = qmodel.realise(target.layout).module
    module = lower(tvm.IRModule({"encode_image": realised["encode_image"]}), target)
    called: Counter[str] = Counter()

    def visit(expr: relax.Expr) -> None:
        if isinstance(expr, relax.Call) and expr.op == tvm.ir.Op.get("relax.call_tir"):
            called[expr.args[0].name_hint.rpartition("_")[0]] += 1

    relax.analysis.post_order_visit(module["encode_image"], visit)
    # the first block of each stage but the first pools its queries
    assert [called[name] for name in ("linear_heads", "log_attention", "pool_queries")] == [6, 6, 3]


def test_fused_kernels_change_no_bit(qmodel: QuantizedModel, pictures: list[np.ndarray], monkeypatch) -> None:
    target = resolve_target("native")
    realised = qmodel.realise(target.layout)
    module = tvm.IRModule({"encode_image": realised.module["encode_image"]})
    parts = [realised.tensors[record] for record in realised.function_params["encode_image"]]
    arrays = [part for value in parts for part in (expand(value) if isinstance(value, QLinearWeight) else (value,))]
    image = qmodel.model.family.prepare(qmodel.model.spec, pictures[0])

    def results() -> list[np.ndarray]:
        machine = relax.VirtualMachine(generate_code(lower(module, target), target), tvm.cpu())
        return [each.numpy() for each in machine["encode_image"](*map(tvm.runtime.tensor, (image, *arrays)))]

    fused = results()
    monkeypatch.setattr(legalise_module, "fuse", lambda *_: {})
    for got, expected in zip(fused, results(), strict=True):
        assert np.array_equal(got, expected)
