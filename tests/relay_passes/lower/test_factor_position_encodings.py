"""Positional encodings as products of rows and columns."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import pytest
import tvm
from tvm import relax, tirx
from tvm.script import ir as I
from tvm.script import relax as R

from tvm_ahcq.relay_passes.lower.build import generate_code, lower
from tvm_ahcq.relay_passes.lower.factor_position_encodings import factor_position_encodings, factors
from tvm_ahcq.relay_passes.rewrite import bindings
from tvm_ahcq.target import resolve_target


def encoding(side: int, channels: int) -> np.ndarray:
    """Sines and cosines of random directions, ``(side * side, 2 * channels)`` float32."""
    rng = np.random.default_rng(0)
    y, x = np.divmod(np.arange(side * side), side)
    angle = 2 * np.pi * (np.stack([x, y], 1) / side * 2 - 1) @ rng.normal(size=(2, channels))
    return np.concatenate([np.sin(angle), np.cos(angle)], 1).astype(np.float32)


def test_an_encoding_is_the_sum_of_two_products():
    given = encoding(24, 16)
    rows, columns = factors(given)
    assert rows.shape == columns.shape == (2, 24, 32)
    rebuilt = np.einsum("ryc,rxc->yxc", rows, columns).reshape(given.shape)
    np.testing.assert_allclose(rebuilt, given, rtol=0, atol=1e-6)


@pytest.mark.parametrize("other", [np.ones((24 * 23, 4)), np.random.default_rng(0).normal(size=(24 * 24, 4))])
def test_other_constants_are_not(other):
    assert factors(other.astype(np.float32)) is None


B = TypeVar("B")
ENCODING = encoding(32, 16)
ROWS, COLUMNS = factors(ENCODING)


@I.ir_module
class Before:
    @R.function
    def main(x: R.Tensor((B, 1024, 32), "float32")):
        with R.dataflow():
            out = R.add(x, R.const(ENCODING[None]))
            R.output(out)
        return out


@I.ir_module
class Expected:
    @R.function
    def main(x: R.Tensor((B, 1024, 32), "float32")):
        with R.dataflow():
            first = R.multiply(R.const(ROWS[0][:, None]), R.const(COLUMNS[0][None]))
            second = R.multiply(R.const(ROWS[1][:, None]), R.const(COLUMNS[1][None]))
            grid = R.reshape(x, R.shape([B, 32, 32, 32]))
            encoding = R.add(first, second)
            total = R.add(grid, encoding)
            out = R.reshape(total, R.shape([B, 1024, 32]))
            R.output(out)
        return out


def test_a_constant_becomes_products_of_rows_and_columns():
    tvm.ir.assert_structural_equal(factor_position_encodings(Before), Expected)


@pytest.mark.parametrize("first", [True, False])
def test_the_sum_is_the_same_without_the_constant(first):
    constant = encoding(32, 16)[None]
    x = relax.Var("x", relax.TensorType([tirx.Var("B", "int64"), 1024, 32], "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x], attrs={"num_input": 1}):
        with builder.dataflow():
            args = (x, relax.const(constant)) if first else (relax.const(constant), x)
            out = builder.emit_output(builder.normalize(relax.op.add(*args)))
        builder.emit_func_output(out)
    mod = factor_position_encodings(builder.get())
    sizes = [
        c.value.numpy().size
        for b in bindings(mod["main"])
        for c in getattr(b.value, "args", ())
        if isinstance(c, tvm.ir.GenericConst)
    ]
    assert sizes == [1024] * 4
    given = np.random.default_rng(1).normal(size=(3, 1024, 32)).astype(np.float32)
    target = resolve_target("native")
    machine = relax.VirtualMachine(generate_code(lower(mod, target), target), tvm.cpu())
    result = machine["main"](tvm.runtime.tensor(given)).numpy()
    np.testing.assert_allclose(result, given + constant, rtol=0, atol=2e-6)
