"""Changed parameters beside a quantization table: what is written comes back, and nothing else is taken for it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.quantizers.core.table_sidecar import companion
from tvm_ahcq.quantizers.weight.weights import calibrate_weight


@pytest.fixture(params=[4, 5, 6, 8])
def table(request) -> QuantTable:
    """A table with one rounded weight, which is not the nearest to anything, and one changed bias."""
    rng = np.random.default_rng(0)
    quantized = calibrate_weight(rng.normal(size=(6, 40)), request.param)
    quantized = replace(quantized, codes=rng.integers(0, 2**request.param, (6, 40)).astype(np.uint8))
    params = {"layer.weight": quantized.dequantize(), "layer.bias": rng.normal(size=6).astype(np.float32)}
    changes = {"b.qk": rng.lognormal(size=8), "a.bias": rng.normal(size=4)}
    ranges = {"layer.weight": WeightRange.of(quantized)}
    return QuantTable("m", recipe("ahcq", request.param), {}, ranges, params, changes)


def test_parameters_come_back_in_every_bit(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    loaded = QuantTable.load(path)
    assert loaded == table and set(loaded.params) == set(table.params)
    for name, array in table.params.items():
        np.testing.assert_array_equal(loaded.params[name], array)
    assert list(loaded.equalisation) == list(table.equalisation)
    for name, array in table.equalisation.items():
        np.testing.assert_array_equal(loaded.equalisation[name], array)
    assert companion(path).stat().st_size < 6 * 40 + 800
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.json", "t.params.safetensors"]


def test_a_table_without_changed_parameters_is_one_file(table, tmp_path):
    replace(table, params={}, equalisation={}).save(tmp_path / "t.json")
    assert [p.name for p in tmp_path.iterdir()] == ["t.json"]
    assert QuantTable.load(tmp_path / "t.json").params == {}


def test_a_missing_or_other_companion_is_refused(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    companion(path).write_bytes(companion(path).read_bytes()[:-1] + b"\0\0")
    with pytest.raises(QuantTableError, match="not the file that was written with"):
        QuantTable.load(path)
    companion(path).unlink()
    with pytest.raises(QuantTableError, match="keep both files in one folder"):
        QuantTable.load(path)


def test_a_weight_that_is_not_rounded_is_kept_in_float(table, tmp_path):
    weight = table.params["layer.weight"] + np.float32(0.001)
    replace(table, params={"layer.weight": weight}).save(tmp_path / "t.json")
    np.testing.assert_array_equal(QuantTable.load(tmp_path / "t.json").params["layer.weight"], weight)
