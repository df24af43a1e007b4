"""What all parameter classes share."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tvm_ahcq.quantizers.core.table  # noqa: F401  (registers every kind)
from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.params import params_from_dict, quantizer_kinds, to_float32


@given(st.floats(width=32, allow_nan=False, allow_infinity=False))
def test_short_floats_survive_json_and_round_to_the_same_float32(value):
    short = to_float32(np.float32(value))
    assert np.float32(json.loads(json.dumps(short))) == np.float32(value)
    assert to_float32(short) == short


def test_short_floats_are_short():
    assert repr(to_float32(np.float32(0.1))) == "0.1"


def test_every_kind_is_registered():
    assert quantizer_kinds() == ("agq", "cag", "hluq", "hluq_published", "lnq", "row_relative", "uniform")


@pytest.mark.parametrize("values", [{}, {"kind": "best"}, {"kind": ["uniform"]}, None, 3])
def test_unknown_kinds_are_refused_with_the_known_ones(values):
    with pytest.raises(QuantTableError, match=", ".join(quantizer_kinds())):
        params_from_dict(values)


@pytest.mark.parametrize("change", [{"extra": 1}, {"bits": 4.5}, {"bits": True}, {"scale": None}, {"zero_point": 1.5}])
def test_fields_that_do_not_fit_are_refused(change):
    good = {"kind": "uniform", "bits": 4, "scale": 0.5, "zero_point": 3}
    assert params_from_dict(good).to_dict() == good
    with pytest.raises(QuantTableError, match="uniform parameters"):
        params_from_dict(good | change)
