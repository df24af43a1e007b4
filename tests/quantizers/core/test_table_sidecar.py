"""The sidecar of a quantization table: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.quantizers.core.table_sidecar import sidecar_path
from tvm_ahcq.quantizers.weight.weights import calibrate_weight, encode_weight


@pytest.fixture(params=[4, 5, 6, 8])
def table(request) -> QuantTable:
    """A table with one rounded weight, which is not the nearest to anything, and one changed bias."""
    rng = np.random.default_rng(0)
    quantized = calibrate_weight(rng.normal(size=(6, 40)), request.param)
    quantized = replace(quantized, codes=rng.integers(0, 2**request.param, (6, 40)).astype(np.uint8))
    params = {"layer.bias": rng.normal(size=6).astype(np.float32)}
    changes = {"b.qk": rng.lognormal(size=8), "a.bias": rng.normal(size=4)}
    ranges = {"layer.weight": WeightRange.of(quantized)}
    return QuantTable(
        "m", recipe("ahcq", request.param), {}, ranges, params, changes, {"layer.weight": quantized.codes}
    )


def edit(path: Path, **fields) -> None:
    """Change fields of the weight in a saved table."""
    content = json.loads(path.read_text())
    content["weights"]["layer.weight"].update(fields)
    path.write_text(json.dumps(content))


def test_arrays_come_back_in_every_bit(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    loaded = QuantTable.load(path)
    assert loaded == table and set(loaded.params) == set(table.params) and set(loaded.codes) == set(table.codes)
    np.testing.assert_array_equal(loaded.params["layer.bias"], table.params["layer.bias"])
    np.testing.assert_array_equal(loaded.codes["layer.weight"], table.codes["layer.weight"])
    assert loaded.codes["layer.weight"].dtype == np.uint8
    assert list(loaded.equalisation) == list(table.equalisation)
    for name, array in table.equalisation.items():
        np.testing.assert_array_equal(loaded.equalisation[name], array)
    assert sidecar_path(path).stat().st_size < 6 * 40 + 800
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.params.safetensors"]


def test_a_table_without_arrays_is_one_file(table, tmp_path):
    replace(table, params={}, equalisation={}, codes={}).save(tmp_path / "t.json")
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
    loaded = QuantTable.load(tmp_path / "t.json")
    assert loaded.params == loaded.codes == {}


def test_a_missing_or_other_companion_is_refused(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    sidecar_path(path).write_bytes(sidecar_path(path).read_bytes()[:-1] + b"\0\0")
    with pytest.raises(QuantTableError, match="not the file that was written with"):
        QuantTable.load(path)
    sidecar_path(path).unlink()
    with pytest.raises(QuantTableError, match="keep both files in one folder"):
        QuantTable.load(path)


def test_a_weight_that_is_not_rounded_is_kept_in_float(table, tmp_path):
    weight = table.weight("layer.weight").dequantize() + np.float32(0.001)
    replace(table, params={"layer.weight": weight}, codes={}).save(tmp_path / "t.json")
    np.testing.assert_array_equal(QuantTable.load(tmp_path / "t.json").params["layer.weight"], weight)


def test_a_sidecar_of_the_first_release_is_read(table, tmp_path):
    """Codes of rounded weights under the weight's name, float32 of other parameters, and the numbered equalisation."""
    arrays = {
        "equalisation:00000:b.qk": table.equalisation["b.qk"],
        "equalisation:00001:a.bias": table.equalisation["a.bias"],
        "layer.bias": table.params["layer.bias"],
        "layer.weight": table.codes["layer.weight"],
    }
    content, path = save(arrays), tmp_path / "t.json"
    (tmp_path / "t.params.safetensors").write_bytes(content)
    record = {"file": "t.params.safetensors", "sha256": hashlib.sha256(content).hexdigest()}
    path.write_text(json.dumps(table.to_dict() | {"params": record}))
    loaded = QuantTable.load(path)
    np.testing.assert_array_equal(loaded.codes["layer.weight"], arrays["layer.weight"])
    np.testing.assert_array_equal(loaded.params["layer.bias"], arrays["layer.bias"])
    assert list(loaded.equalisation) == ["b.qk", "a.bias"]


def test_a_rounded_weight_keeps_its_codes_when_its_scales_are_edited(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    edit(path, scale=[2 * scale for scale in table.weights["layer.weight"].scale])
    loaded = QuantTable.load(path)
    assert loaded.with_codes({}).codes["layer.weight"] is loaded.codes["layer.weight"]
    np.testing.assert_array_equal(loaded.codes["layer.weight"], table.codes["layer.weight"])
    values = loaded.changed_params()["layer.weight"]
    np.testing.assert_array_equal(values, 2 * table.weight("layer.weight").dequantize())


def test_a_weight_without_codes_is_encoded_with_the_edited_scales(table, tmp_path):
    float_weight = np.random.default_rng(1).normal(size=(6, 40)).astype(np.float32)
    path, scale = tmp_path / "t.json", [0.25] * 6
    replace(table, codes={}).save(path)
    edit(path, scale=scale)
    codes = QuantTable.load(path).with_codes({"layer.weight": float_weight}).codes["layer.weight"]
    ranges = table.weights["layer.weight"]
    expected = encode_weight(float_weight, np.float32(scale), ranges.arrays()[1], ranges.bits)
    np.testing.assert_array_equal(codes, expected.codes)


def test_codes_that_do_not_fit_the_range_are_refused(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    edit(path, bits=2, zero_point=[1] * 6)
    with pytest.raises(QuantTableError, match="bits 2, but codes up to"):
        QuantTable.load(path)
    edit(path, bits=4, zero_point=[1] * 5, scale=[0.1] * 5)
    with pytest.raises(QuantTableError, match=r"5 scales .* codes of shape \(6, 40\)"):
        QuantTable.load(path)
    content = json.loads(path.read_text())
    del content["weights"]["layer.weight"]
    path.write_text(json.dumps(content))
    with pytest.raises(QuantTableError, match="but the table no range"):
        QuantTable.load(path)


def test_a_float_model_that_does_not_fit_is_refused(table):
    plain = replace(table, codes={})
    with pytest.raises(QuantTableError, match="which the model lacks"):
        plain.with_codes({})
    with pytest.raises(QuantTableError, match=r"6 scales .* 5 output channels"):
        plain.with_codes({"layer.weight": np.zeros((5, 40), np.float32)})


def test_rounding_replaces_a_conditioned_weight(table):
    conditioned = replace(table, params={**table.params, "layer.weight": np.ones((6, 40), np.float32)}, codes={})
    rounded = conditioned.with_rounded({"layer.weight": table.weight("layer.weight")}, {"layer.bias": np.zeros(6)})
    assert set(rounded.params) == {"layer.bias"} and not rounded.params["layer.bias"].any()
    np.testing.assert_array_equal(rounded.codes["layer.weight"], table.codes["layer.weight"])
