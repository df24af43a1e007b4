"""Calibration on images: what it samples and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.api import quantize
from tvm_ahcq.calibrate.calibrate import calibrate
from tvm_ahcq.calibrate.recorder import ROWS_A_SITE, ROWS_AN_IMAGE, Recorder
from tvm_ahcq.calibrate.samples import Samples
from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.models.sam.driver import calibration_prompts
from tvm_ahcq.models.sam.family import SAM
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.relay_passes.annotate import annotate, layers, sites
from tvm_ahcq.relay_passes.canonicalise import canonicalise
from tvm_ahcq.relay_passes.rewrite import name_parameters
from tvm_ahcq.torch_exec.simulate import attention_logits


def test_every_site_and_every_quantized_weight_gets_an_entry(quantized):
    table = quantized.table
    assert set(table.sites) == set(sites(quantized.annotated))
    assert set(table.weights) == {layer.weight for layer in layers(quantized.annotated).values()}
    kinds = {name: (params.kind, params.bits) for name, params in table.sites.items()}
    pixels = "image_encoder.patch_embed.proj.input"
    assert kinds.pop(pixels) == ("cag", 8)
    assert kinds == {name: wanted for name, wanted in sites(quantized.annotated).items() if name != pixels}


def test_pixels_keep_their_256_levels_whatever_the_pictures_show(quantized, tiny_model):
    found = quantized.table.sites["image_encoder.patch_embed.proj.input"]
    np.testing.assert_allclose(found.scales, 1 / np.array(tiny_model.spec.pixel_std), rtol=1e-6)
    assert found.zero_points == tuple(round(mean) for mean in tiny_model.spec.pixel_mean)
    assert found.group_of == (0,) * 256 + (1,) * 256 + (2,) * 256


def test_without_figures_of_the_pictures_pixels_have_the_range_that_was_seen(tiny_model):
    module = name_parameters(tiny_model.module, tiny_model.function_params)
    module = annotate(canonicalise(module), recipe(), SAM)
    image = np.full((1, 3, 128, 128), 0.5, np.float32)
    image[0, 1], image[0, 2, :64], image[0, 2, 64:] = -2, -1, 3
    table = calibrate(module, tiny_model.params, Samples(tiny_model.spec, [image]), recipe())
    found = table.sites["image_encoder.patch_embed.proj.input"]
    np.testing.assert_allclose(found.scales, np.array([0.5, 2, 4]) / 255, rtol=1e-6)


def test_tables_survive_a_file_and_serve_instead_of_images(quantized, tmp_path):
    quantized.table.save(tmp_path / "table.json")
    loaded = QuantTable.load(tmp_path / "table.json")
    assert loaded == quantized.table
    again = quantize(quantized.model, loaded)
    image = np.full((100, 80, 3), 90, np.uint8)
    predictors = [q.fake_quant_predictor() for q in (quantized, again)]
    for predictor in predictors:
        predictor.set_image(image)
    np.testing.assert_array_equal(predictors[0].features, predictors[1].features)


def test_calibration_is_deterministic(tiny_model, pictures, quantize_tiny):
    assert quantize(tiny_model, pictures, recipe("ahcq", 4)).table == quantize_tiny(4).table


def test_recorder_keeps_the_extremes_and_bounds_its_memory():
    recorder = Recorder()
    for image in range(2 * ROWS_A_SITE // ROWS_AN_IMAGE):
        x = torch.randn(1, 500, 8, generator=torch.Generator().manual_seed(image))
        x[0, 123, 4], x[0, 321, 2] = 99.0 + image, -99.0 - image
        assert recorder.activation("site", x) is x
    kept = np.concatenate(recorder.rows["site"])
    assert len(kept) == ROWS_A_SITE
    for rows in kept.reshape(-1, ROWS_AN_IMAGE, 8):
        assert rows.max() >= 99.0 and rows.max() == -rows.min()
    images = kept.reshape(-1, ROWS_AN_IMAGE, 8).max((1, 2)) - 99
    assert len(set(images)) == len(images) and 0.25 < np.mean(images >= len(images)) < 0.75  # of early and late passes


def test_recorded_probabilities_are_those_of_the_whole_attention():
    recorder = Recorder()
    q, k, v = (torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    rel = tuple(torch.randn(2 * n - 1, 8, generator=torch.Generator().manual_seed(n)) for n in (6, 5))
    for tables in ((None, None), rel):
        recorder.attention("a", q, k, v, 0.3, *tables)
        whole = attention_logits(q, k, 0.3, *tables).softmax(-1)
        probs, values = recorder.slices["a.probs"][-1]
        for head, value in zip(probs, values, strict=True):
            original = int((v == torch.from_numpy(value)).flatten(1).all(1).nonzero()[0])
            distance = (torch.from_numpy(head)[:, None] - whole[original]).abs().amax(-1)
            assert distance.amin(1).max() < 1e-6


def test_attention_samples_of_unequal_length_are_filled_with_zeros():
    recorder = Recorder()
    for keys in (5, 9):
        recorder.attention("a", torch.ones(6, 20, 3), torch.ones(6, keys, 3), torch.ones(6, keys, 3), 1.0, None, None)
    probs, values = recorder.attention_sample("a.probs")
    assert probs.shape == (8, 16, 9) and values.shape == (8, 9, 3)
    np.testing.assert_allclose(probs.sum(-1), 1.0, rtol=1e-6)


def test_prompts_are_clicks_with_padding_and_boxes_in_order():
    coords, labels = calibration_prompts(256, seed=3)
    assert coords.shape == (10, 2, 2) and labels.shape == (10, 2)
    boxes = coords[labels[:, 0] == 2]
    assert len(boxes) == 4 and (boxes[:, 0] < boxes[:, 1]).all() and (boxes >= 0).all() and (boxes <= 256).all()
    assert set(labels[:6].ravel()) == {1.0, -1.0}


def test_no_images_are_refused_with_a_clear_error(tiny_model):
    with pytest.raises(CalibrationError, match="at least one image"):
        quantize(tiny_model, [])


def test_progress_is_reported_to_the_end(tiny_model, pictures):
    seen = []
    quantize(tiny_model, pictures[:1], recipe("ahcq", 4), progress=lambda *step: seen.append(step))
    last = {what: (done, total) for what, done, total in seen}
    assert set(last) == {"calibrate: images", "calibrate: sites", "calibrate: weights", "round: layers"}
    assert all(done == total for done, total in last.values())
