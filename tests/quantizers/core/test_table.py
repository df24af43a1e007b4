"""The quantization table: round trip, readability, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import HluqParams
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.recipe import recipe
from tvm_ahcq.quantizers.core.table import QuantTable, WeightRange
from tvm_ahcq.quantizers.weight.weights import calibrate_weight, encode_weight


@pytest.fixture
def table() -> QuantTable:
    sites = {
        "image_encoder.blocks.0.attn.qkv.input": CagParams(4, (0.1, 1 / 3), (7, 8), (0, 1, 1, 0)),
        "image_encoder.blocks.0.attn.softmax": LnqParams(4, 20.0, 0.9),
        "image_encoder.blocks.0.mlp.lin2.input": HluqParams(4, 4, 9, 0.05, -0.16997121),
        "image_encoder.neck.0.input": UniformParams(4, 0.1, 3),
    }
    w = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    weights = {"image_encoder.neck.0.weight": WeightRange.of(calibrate_weight(w, 4))}
    return QuantTable("vit_t", recipe("ahcq", 4), sites, weights)


def edited(table: QuantTable, tmp_path, change) -> str:
    content = table.to_dict()
    change(content)
    path = tmp_path / "edited.json"
    path.write_text(json.dumps(content))
    return str(path)


def test_saved_table_is_read_back_equal(table, tmp_path):
    path = tmp_path / "table.json"
    table.save(path)
    assert QuantTable.load(path) == table
    assert list(QuantTable.load(path).sites) == list(table.sites)
    assert [p.name for p in tmp_path.iterdir()] == ["table.json"]


def test_each_site_and_weight_has_its_own_line_with_short_numbers(table, tmp_path):
    table.save(tmp_path / "table.json")
    lines = (tmp_path / "table.json").read_text().splitlines()
    (line,) = [text for text in lines if "neck.0.input" in text]
    assert json.loads("{" + line.strip().rstrip(",") + "}") == {
        "image_encoder.neck.0.input": {"kind": "uniform", "bits": 4, "scale": 0.1, "zero_point": 3}
    }


def test_weight_codes_follow_from_the_ranges(table):
    w = np.random.default_rng(0).normal(size=(5, 9)).astype(np.float32)
    scale, zero_point = table.weights["image_encoder.neck.0.weight"].arrays()
    direct = calibrate_weight(w, 4)
    np.testing.assert_array_equal(encode_weight(w, scale, zero_point, 4).codes, direct.codes)
    np.testing.assert_array_equal(scale, direct.scale)


def test_summary_counts_sites_and_weights(table):
    text = table.summary()
    assert "vit_t" in text and "4 sites (1 cag, 1 hluq, 1 lnq, 1 uniform)" in text and "1 weights" in text


def test_an_empty_table_round_trips(tmp_path):
    empty = QuantTable("vit_t", recipe())
    empty.save(tmp_path / "table.json")
    assert QuantTable.load(tmp_path / "table.json") == empty


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(version=2), "version 2"),
        (lambda c: c.update(format="other"), "not a quantization table"),
        (lambda c: c.pop("sites"), "lacks"),
        (lambda c: c["recipe"].update(bits_weights=3), "recipe"),
        (lambda c: c["sites"]["image_encoder.neck.0.input"].update(kind="agq?"), r"neck\.0\.input.*unknown.*uniform"),
        (lambda c: c["sites"]["image_encoder.neck.0.input"].update(scale=-1.0), r"neck\.0\.input.*positive"),
        (lambda c: c["sites"]["image_encoder.neck.0.input"].update(scale="x"), r"neck\.0\.input"),
        (lambda c: c["sites"]["image_encoder.neck.0.input"].pop("scale"), "exactly"),
        (lambda c: c["sites"].update(x=3), "'x'"),
        (lambda c: c["weights"]["image_encoder.neck.0.weight"]["scale"].pop(), "4 scales and 5 zero points"),
        (lambda c: c["weights"]["image_encoder.neck.0.weight"].update(bits=99), "bits is 99"),
        (lambda c: c["weights"]["image_encoder.neck.0.weight"].update(bits=8), "zero point 128"),
        (lambda c: c["weights"]["image_encoder.neck.0.weight"].update(scale=None), "neck"),
    ],
)
def test_damaged_or_foreign_tables_are_refused_with_the_reason(table, tmp_path, change, message):
    with pytest.raises(QuantTableError, match=message):
        QuantTable.load(edited(table, tmp_path, change))


def test_missing_and_unparsable_files_are_refused(tmp_path):
    with pytest.raises(QuantTableError, match="cannot be read"):
        QuantTable.load(tmp_path / "absent.json")
    (tmp_path / "broken.json").write_text('{"format": ')
    with pytest.raises(QuantTableError, match="not JSON"):
        QuantTable.load(tmp_path / "broken.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(QuantTableError, match="not a quantization table"):
        QuantTable.load(tmp_path / "list.json")


def test_unwritable_folder_is_reported_and_leaves_nothing(table, tmp_path):
    with pytest.raises(QuantTableError, match="cannot be written"):
        table.save(tmp_path / "absent" / "table.json")
    assert not list(tmp_path.iterdir())
