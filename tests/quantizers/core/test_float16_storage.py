"""Rounding of large float parameters to float16 precision."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.quantizers.core.float16_storage import MIN_SIZE, round_to_float16


def test_large_float_parameters_are_rounded_and_all_others_kept():
    rng = np.random.default_rng(0)
    params = {
        name: rng.normal(size=size).astype(np.float32)
        for name, size in [("table", (4, MIN_SIZE)), ("coded", (4, MIN_SIZE)), ("small", MIN_SIZE - 1)]
    }
    params["wide"] = params["table"] * np.float32(1e6)
    rounded = round_to_float16(params, {"coded"})
    assert list(rounded) == list(params)
    np.testing.assert_array_equal(rounded["table"], params["table"].astype(np.float16))
    assert rounded["table"].dtype == np.float32
    assert 0 < np.abs(rounded["table"] - params["table"]).max() < 2.0**-11 * np.abs(params["table"]).max()
    # "wide" would overflow
    assert all(rounded[name] is params[name] for name in ("coded", "small", "wide"))


def test_rounding_again_changes_nothing():
    params = {"table": np.linspace(-3, 3, 2 * MIN_SIZE, dtype=np.float32)}
    once = round_to_float16(params, ())
    np.testing.assert_array_equal(round_to_float16(once, ())["table"], once["table"])
