"""Storage of codes, and expansion to what the kernels read, against plain loops and the reference semantics."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tvm_ahcq.errors import BundleError
from tvm_ahcq.quantizers.core.reference import grouped_accumulators
from tvm_ahcq.runtime.weights import (
    CODE_BITS,
    QLinearWeight,
    expand,
    from_record,
    pack,
    pack_codes,
    packed_size,
    record_sizes,
    to_record,
    unpack,
    unpack_codes,
)


def random_weight(seed: int, bits: int, rows: int, sizes: tuple[int, ...], padding: int, layout: str) -> QLinearWeight:
    rng = np.random.default_rng(seed)
    padded = sum(sizes)
    columns = padded - padding
    index = np.concatenate([np.arange(columns), np.full(padding, -1)]).astype(np.int32)
    zero = np.full(rows, 128) if bits == 8 else rng.integers(0, 2**bits, rows)
    return QLinearWeight(
        rng.integers(0, 2**bits, (rows, columns), dtype=np.uint8),
        bits,
        rng.uniform(1e-3, 1, rows).astype(np.float32),
        zero.astype(np.uint8),
        rng.permutation(index),
        sizes,
        rng.uniform(1e-3, 1, len(sizes)).astype(np.float32),
        rng.integers(-20, 20, len(sizes)).astype(np.int32),
        layout,
    )


weights = st.builds(
    random_weight,
    st.integers(0, 2**31),
    st.sampled_from(CODE_BITS),
    st.integers(1, 40),
    st.lists(st.integers(1, 5).map(lambda n: 4 * n), min_size=1, max_size=4).map(tuple),
    st.integers(0, 3),
    st.sampled_from(("vnni16", "rows")),
)


@given(st.sampled_from(CODE_BITS), st.integers(0, 300), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_codes_survive_packing_and_take_no_more_bytes_than_their_bits(bits, count, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, count, dtype=np.uint8)
    data = pack_codes(codes, bits)
    assert len(data) == packed_size(count, bits) == -(-count * bits // 8)
    np.testing.assert_array_equal(unpack_codes(data, count, bits), codes)


@pytest.mark.parametrize("bits", CODE_BITS)
def test_packed_codes_are_one_little_endian_bit_string(bits):
    codes = np.random.default_rng(1).integers(0, 2**bits, 21, dtype=np.uint8)
    number = sum(int(code) << (bits * position) for position, code in enumerate(codes))
    assert pack_codes(codes, bits) == number.to_bytes(packed_size(21, bits), "little")


@given(weights)
@settings(max_examples=60, deadline=None)
def test_a_weight_survives_its_record(weight):
    info, data = to_record(weight)
    again = from_record(json.loads(json.dumps(info)), data)
    assert sum(record_sizes(info)) == len(data)
    for name in ("codes", "scale", "zero_point", "index", "group_scale", "group_zero_point"):
        np.testing.assert_array_equal(getattr(again, name), getattr(weight, name))
    assert (again.bits, again.group_sizes, again.layout) == (weight.bits, weight.group_sizes, weight.layout)


@given(weights)
@settings(max_examples=60, deadline=None)
def test_expansion_equals_the_definition_element_by_element(weight):
    packed, multiplier, correction = expand(weight)
    rows = len(weight.codes)
    operands = np.zeros((rows, len(weight.index)), np.int64)
    for column, source in enumerate(weight.index):
        if source >= 0:
            operands[:, column] = weight.codes[:, source].astype(int) - weight.zero_point.astype(int)
    assert packed.dtype == np.int8
    if weight.layout == "rows":
        np.testing.assert_array_equal(packed, operands)
    else:
        assert packed.shape == (-(-rows // 16), len(weight.index) // 4, 16, 4)
        for block, quad, row, lane in np.ndindex(packed.shape):
            output = block * 16 + row
            expected = operands[output, quad * 4 + lane] if output < rows else 0
            assert packed[block, quad, row, lane] == expected
    start = 0
    for group, size in enumerate(weight.group_sizes):
        total = operands[:, start : start + size].sum(axis=1)
        np.testing.assert_array_equal(correction[group], -int(weight.group_zero_point[group]) * total)
        np.testing.assert_array_equal(multiplier[group], np.float32(weight.group_scale[group]) * weight.scale)
        start += size


def test_corrected_accumulators_equal_those_of_centred_activations():
    weight = random_weight(3, 4, 24, (8, 12), 2, "rows")
    operands, _, correction = expand(weight)
    codes = np.random.default_rng(4).integers(0, 16, (5, 20), dtype=np.uint8)
    corrected = grouped_accumulators(codes, operands, weight.group_sizes) + correction[:, None, :]
    zero = np.repeat(weight.group_zero_point, weight.group_sizes)
    centred = (codes.astype(int) - zero) * 1
    parts = [centred[:, :8] @ operands[:, :8].T.astype(int), centred[:, 8:] @ operands[:, 8:].T.astype(int)]
    np.testing.assert_array_equal(corrected, np.stack(parts))


def test_an_identity_order_costs_no_bytes():
    weight = random_weight(0, 4, 16, (16,), 0, "vnni16")
    ordered = QLinearWeight(
        weight.codes,
        4,
        weight.scale,
        weight.zero_point,
        np.arange(16, dtype=np.int32),
        (16,),
        weight.group_scale,
        weight.group_zero_point,
    )
    assert len(to_record(weight)[1]) - len(to_record(ordered)[1]) == 2 * 16


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("codes", np.full((16, 16), 16, np.uint8)),
        ("scale", np.ones(15, np.float32)),
        ("bits", 3),
        ("bits", 8),
        ("index", np.full(16, 16, np.int32)),
        ("group_sizes", (10, 6)),
        ("layout", "columns"),
        ("zero_point", np.zeros(16, np.int32)),
    ],
)
def test_a_weight_that_makes_no_sense_is_refused(field, value):
    weight = random_weight(0, 4, 16, (8, 8), 0, "vnni16")
    fields = {name: getattr(weight, name) for name in weight.__dataclass_fields__} | {field: value}
    with pytest.raises(ValueError):
        QLinearWeight(**fields)


def test_a_record_of_the_wrong_length_is_refused():
    info, data = to_record(random_weight(0, 5, 7, (8,), 1, "rows"))
    with pytest.raises(BundleError, match="bytes"):
        from_record(info, data[:-1])


def test_an_unknown_layout_is_refused():
    with pytest.raises(ValueError, match="vnni16"):
        pack(np.zeros((16, 16), np.int8), "nchw")


@pytest.mark.parametrize("layout", ["vnni16", "rows"])
@pytest.mark.parametrize("rows", [1, 16, 37])
def test_packed_operands_are_unpacked(layout, rows):
    operands = np.random.default_rng(rows).integers(-128, 128, (rows, 24)).astype(np.int8)
    np.testing.assert_array_equal(unpack(pack(operands, layout), layout, rows), operands)


def test_an_unknown_layout_is_not_unpacked():
    with pytest.raises(ValueError, match="unknown layout 'columns'"):
        unpack(np.zeros((1, 1, 16, 4), np.int8), "columns", 3)
