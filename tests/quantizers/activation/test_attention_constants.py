"""Constants of the log-domain attention: quantizers that it takes, thresholds, relative positions."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.lnq import LnqParams
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.reference import FRACTION_BITS

Q, K, V = (UniformParams(4, 0.25 * (i + 1), 5 + i) for i in range(3))


def quantizers(probs: QuantizerParams) -> AttentionQuantizers:
    return AttentionQuantizers(Q, K, V, probs)


@pytest.mark.parametrize("probs", [LnqParams(4, 20.0, 0.7), UniformParams(4, 1 / 15, 0)], ids=["lnq", "uniform"])
def test_thresholds_are_logarithms_of_the_codebook(probs):
    constants, rel_h, rel_w = attention_constants(quantizers(probs), scale=0.5, head_dim=8)
    (codebook,) = probs.codebooks()
    assert rel_h is None and rel_w is None
    assert (constants.q_zero, constants.k_zero, constants.v_zero) == (5, 6, 7)
    np.testing.assert_array_equal(constants.table, codebook.table)
    np.testing.assert_allclose(2.0 ** (-constants.log_thresholds / 2**FRACTION_BITS), codebook.thresholds, rtol=1e-3)
    assert constants.out_scale == np.float32(codebook.scale) * np.float32(V.scale)


def test_row_relative_codes_have_the_scale_of_a_value():
    constants, _, _ = attention_constants(quantizers(RowRelativeParams(4, 20.0)), scale=0.5, head_dim=8)
    assert constants.row_relative
    assert constants.out_scale == np.float32(V.scale)
    assert constants.log_thresholds.min() >= 0  # the greatest of a row has the highest code


def test_thresholds_out_of_reach_fit_16_bits():
    constants, _, _ = attention_constants(quantizers(LnqParams(8, 200.0, 1e-8)), scale=0.5, head_dim=8)
    assert constants.log_thresholds.max() < 2**15
    above_one = LnqParams(4, 1.0, 1.0)
    thresholds = attention_constants(quantizers(above_one), scale=0.5, head_dim=8)[0].log_thresholds
    assert (thresholds >= -(2**FRACTION_BITS)).all() and (np.diff(thresholds) <= 0).all()


def test_relative_positions_keep_their_values_within_half_a_step():
    rng = np.random.default_rng(0)
    rel_h, rel_w = rng.normal(size=(5, 8)).astype(np.float32), 0.1 * rng.normal(size=(7, 8)).astype(np.float32)
    constants, rows, columns = attention_constants(
        quantizers(LnqParams(4, 20.0, 0.7)), scale=0.5, head_dim=8, rel_h=rel_h, rel_w=rel_w
    )
    for table, exact in ((rows, rel_h), (columns, rel_w)):
        step = np.abs(exact).max() / 127
        assert table.dtype == np.int8 and np.abs(table * step - exact).max() <= 0.501 * step
    ratio = constants.rel_h_multiplier / constants.rel_w_multiplier
    assert ratio == pytest.approx(np.abs(rel_h).max() / np.abs(rel_w).max(), rel=1e-2)


def test_probabilities_whose_code_0_is_not_0_are_refused():
    with pytest.raises(QuantTableError, match="must give 0 the code 0"):
        attention_constants(quantizers(UniformParams(4, 1 / 15, 3)), scale=0.5, head_dim=8)
