"""SAM 2 from calibration to a bundle: every layer has a role, and compiled results are the simulation's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.predictor import Sam2ImagePredictor
from tvm_ahcq.relay_passes.annotate import sites
from tvm_ahcq.relay_passes.coverage import coverage


@pytest.fixture(scope="module")
def qmodel(model: FloatModel, pictures: list[np.ndarray]) -> QuantizedModel:
    return ahcq.quantize(model, pictures, ahcq.recipe("ahcq", bits=4))


def test_every_linear_layer_and_attention_of_encoder_and_decoder_is_a_site(qmodel: QuantizedModel) -> None:
    report = coverage(qmodel.annotated, qmodel.table.recipe, qmodel.model.family)
    assert report.missing == ()
    in_float = {entry.name for entry in report.float_layers}
    heads = ("output_", "_head", "obj_ptr_proj", "sam_prompt_encoder", "patch_embed", "max_pool2d", "matmul")
    assert all(any(part in name for part in heads) or name == "image_encoder.trunk" for name in in_float)
    # 6 blocks of 4 layers and 4 operands, 3 that widen, 4 laterals and 2 of high resolution;
    # 7 attentions of 4 layers and 4 operands, and 2 MLPs
    assert qmodel.sites == (6 * 8 + 3 + 4 + 2 + 7 * 8 + 2 * 2,) * 2
    assert len(sites(qmodel.annotated)) == qmodel.sites[0]


@pytest.mark.slow
@pytest.mark.parametrize("bits", [4, 8])
def test_compiled_results_are_the_simulations(
    model: FloatModel, pictures: list[np.ndarray], qmodel: QuantizedModel, tmp_path: Path, bits: int
) -> None:
    quantized = qmodel if bits == 4 else ahcq.quantize(model, pictures, ahcq.recipe("ahcq", bits=bits))
    ahcq.compile(quantized, target="native").save(tmp_path / "tiny2.ahcq")
    compiled = ahcq.load(tmp_path / "tiny2.ahcq")
    assert isinstance(compiled, Sam2ImagePredictor)
    simulated = quantized.fake_quant_predictor()
    for predictor in (compiled, simulated):
        predictor.set_image(pictures[0])
    np.testing.assert_allclose(compiled.get_image_embedding(), simulated.get_image_embedding(), atol=1e-5)
    results = [
        predictor.predict(box=np.array([[10, 20, 60, 70], [5, 5, 30, 40]]), return_logits=True)
        for predictor in (compiled, simulated)
    ]
    for mine, expected in zip(*results, strict=True):
        np.testing.assert_allclose(mine, expected, atol=1e-4 * np.abs(expected).max())
    assert all(check.passed for check in compiled.session.verify())
