"""From a model to a file and back: ``quantize``, ``compile``, ``save``, ``load``."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.api import CompiledModel, QuantizedModel, float_predictor
from tvm_ahcq.errors import BundleError, CalibrationError, QuantTableError, RecipeError, TargetError
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.target import host_features, resolve_target


@pytest.fixture(scope="module")
def model(make_tiny_model) -> FloatModel:
    """Other weights than the tests of the passes have."""
    return make_tiny_model(1)


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    """A wide picture of coloured squares."""
    return np.kron(np.random.default_rng(0).integers(0, 255, (6, 9, 3)), np.ones((16, 16, 1))).astype(np.uint8)


@pytest.fixture(scope="module")
def qmodel(model, picture) -> QuantizedModel:
    return ahcq.quantize(model, [picture, picture[::-1], picture[:, ::-1]], ahcq.recipe("ahcq", bits=4))


def runs_here(name: str) -> bool:
    """True if this machine can run code for the x86-64 target of that name."""
    return platform.machine() == "x86_64" and host_features().issuperset(resolve_target(name).cpu_features)


TARGETS = [name for name in ("avx512-vnni", "avx2", "generic") if runs_here(name)] or ["native"]
"""Targets that this machine can run, the best first."""


@pytest.fixture(scope="module")
def compiled(qmodel) -> CompiledModel:
    """For each of the targets, in one bundle."""
    return ahcq.compile(qmodel, target=",".join(TARGETS))


def test_the_compiled_file_predicts_what_the_simulation_does(compiled, qmodel, picture, tmp_path):
    compiled.save(tmp_path / "tiny.ahcq")
    predictors = ahcq.load(tmp_path / "tiny.ahcq"), qmodel.fake_quant_predictor()
    results = []
    for predictor in predictors:
        predictor.set_image(picture)
        results.append(predictor.predict(np.array([[70, 40], [20, 20]]), np.array([1, 0]), return_logits=True))
    (masks, scores, low), (expected_masks, expected_scores, expected_low) = results
    assert masks.shape == (3, *picture.shape[:2]) and low.shape == (3, 32, 32)
    assert np.abs(scores - expected_scores).max() < 0.01
    assert np.abs(low - expected_low).mean() < 0.02 * np.abs(expected_low).mean()
    assert ((masks > 0) == (expected_masks > 0)).mean() > 0.99


def test_the_compiled_encoder_equals_the_simulation_in_every_bit(compiled, qmodel, tmp_path):
    compiled.save(tmp_path / "tiny.ahcq")
    image = np.random.default_rng(1).normal(size=(1, 3, 128, 128)).astype(np.float32)
    embedding = SamFunctions(ahcq.load(tmp_path / "tiny.ahcq").session).encode(image)
    np.testing.assert_array_equal(embedding, SamFunctions(qmodel.fake_quant_predictor().session).encode(image))


def test_the_self_check_passes_and_notices_other_weights(compiled, tmp_path):
    compiled.save(tmp_path / "good.ahcq")
    assert all(check.passed for check in ahcq.load(tmp_path / "good.ahcq").session.verify())
    name = next(n for n in compiled.tensors if n.endswith("blocks.0.attn.qkv.bias"))
    tampered = replace(compiled, tensors={**compiled.tensors, name: compiled.tensors[name] + 3})
    tampered.save(tmp_path / "bad.ahcq")
    with pytest.raises(BundleError, match="embedding"):
        ahcq.load(tmp_path / "bad.ahcq").session.verify()


def test_all_sites_are_on_integers_and_the_manifest_says_so(compiled, qmodel, tmp_path):
    covered, total = qmodel.sites
    assert covered == total == len(qmodel.table.sites)
    manifest = compiled.save(tmp_path / "tiny.ahcq")
    assert manifest.sites == (total, total) and manifest.bits == 4
    assert manifest.recipe["name"] == "ahcq"


def test_a_float_model_compiles_and_equals_torch(model, picture, tmp_path):
    ahcq.compile(model).save(tmp_path / "float.ahcq")
    predictors = ahcq.load(tmp_path / "float.ahcq"), float_predictor(model)
    results = []
    for predictor in predictors:
        predictor.set_image(picture)
        results.append(predictor.predict(box=np.array([10, 10, 100, 80]), multimask_output=False, return_logits=True))
    np.testing.assert_allclose(predictors[0].features, predictors[1].features, atol=1e-4)
    np.testing.assert_allclose(results[0][2], results[1][2], atol=1e-4)
    np.testing.assert_allclose(results[0][1], results[1][1], atol=1e-4)


def test_the_file_runs_in_a_process_without_torch_and_compiler(compiled, picture, tmp_path):
    compiled.save(tmp_path / "tiny.ahcq")
    np.save(tmp_path / "picture.npy", picture)
    path = [entry for entry in sys.path if entry]
    program = f"""
import sys
sys.path[:0] = {path!r}
class Refuse:
    def find_spec(self, name, *_):
        if name.split('.')[0] in ('torch', 'torchvision', 'segment_anything'):
            raise ImportError(f'{{name}} is not for the runtime')
sys.meta_path.insert(0, Refuse())
import numpy as np, tvm_ahcq
predictor = tvm_ahcq.load({str(tmp_path / "tiny.ahcq")!r})
predictor.set_image(np.load({str(tmp_path / "picture.npy")!r}))
masks, scores, _ = predictor.predict(np.array([[30, 30]]), np.array([1]))
assert masks.shape[0] == 3 and masks.dtype == bool and np.isfinite(scores).all()
assert 'tvm' not in sys.modules
print('segmented')
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip() == "segmented", done.stderr


def test_a_table_of_another_model_is_refused(qmodel, model):
    with pytest.raises(QuantTableError, match="made for"):
        ahcq.quantize(model, replace(qmodel.table, model="vit_x"))
    assert ahcq.quantize(model, qmodel.table).table is qmodel.table


def test_an_edited_table_takes_effect(qmodel, model, picture):
    content = qmodel.table.to_dict()
    for name, site in content["sites"].items():
        if name.endswith("mlp.lin1.input"):
            site["scales"] = [40 * scale for scale in site["scales"]]
    edited = ahcq.quantize(model, QuantTable.from_dict(content))
    features = []
    for each in (qmodel, edited):
        predictor = each.fake_quant_predictor()
        predictor.set_image(picture)
        features.append(predictor.features)
    assert np.abs(features[0] - features[1]).mean() > 0.05 * np.abs(features[0]).mean()


def test_what_cannot_work_is_refused_before_the_work(model, qmodel, tmp_path):
    with pytest.raises(RecipeError, match="known recipes"):
        ahcq.quantize(model, [], recipe="nonsense")
    with pytest.raises(CalibrationError):
        ahcq.quantize(model, tmp_path)
    with pytest.raises(TargetError, match="expected one of"):
        ahcq.compile(qmodel, target="pentium")


def test_one_bundle_computes_the_same_on_each_of_its_targets(compiled, qmodel, tmp_path):
    """Weights are stored once, although "generic" wants them packed in another way."""
    if len(TARGETS) < 2:
        pytest.skip("needs an x86-64 machine with AVX2")
    manifest = compiled.save(tmp_path / "several.ahcq")
    assert [target.name for target in manifest.targets] == TARGETS
    image = np.random.default_rng(1).normal(size=(1, 3, 128, 128)).astype(np.float32)
    expected = SamFunctions(qmodel.fake_quant_predictor().session).encode(image)
    assert ahcq.load(tmp_path / "several.ahcq").session.target.name == TARGETS[0]
    for name in TARGETS:
        session = ahcq.load(tmp_path / "several.ahcq", target=name).session
        np.testing.assert_array_equal(SamFunctions(session).encode(image), expected)


def test_another_architecture_needs_its_linker(model, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(TargetError, match=r"needs the linker .*-gcc, .*apt install gcc-"):
        ahcq.compile(model, target="aarch64" if platform.machine() == "x86_64" else "avx2")
