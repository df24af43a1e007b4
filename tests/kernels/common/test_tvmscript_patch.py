"""The patched parser of inlined parts: same results, no sources read, each part parsed once."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T
from tvm.script.parser.core import doc, evaluator
from tvm.script.parser.core.diagnostics import Source
from tvm.tirx.script.parser import entry

import tvm_ahcq.kernels  # noqa: F401  (applies the patch)


@T.inline
def add_twice(out, x, i):
    out[i] = x[i] + x[i]


@T.inline
def add_twice_and_one(out, x, i):
    add_twice(out, x, i)
    out[i] = out[i] + T.float32(1)


def kernel() -> tvm.tirx.PrimFunc:
    """A function with an inlined part in an inlined part."""

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((4,), "float32"), out: T.Buffer((4,), "float32")):
        for i in T.serial(4):
            add_twice_and_one(out, x, i)

    return func


def test_inlined_parts_of_inlined_parts_compute():
    x, out = tvm.runtime.tensor(np.arange(4, dtype=np.float32)), tvm.runtime.tensor(np.zeros(4, np.float32))
    tvm.compile(kernel())(x, out)
    np.testing.assert_array_equal(out.numpy(), [1, 3, 5, 7])


def test_inlining_reads_no_sources_of_callers(monkeypatch):
    walks = []
    walk = inspect.getouterframes
    monkeypatch.setattr(inspect, "getouterframes", lambda *args, **kwargs: walks.append(1) or walk(*args, **kwargs))

    @T.prim_func(s_tir=True)
    def plain(x: T.Buffer((4,), "float32"), out: T.Buffer((4,), "float32")):
        for i in T.serial(4):
            out[i] = x[i]

    assert plain.params
    of_plain = len(walks)
    kernel()
    assert len(walks) == 2 * of_plain


def test_a_part_is_parsed_once_for_all_its_calls(monkeypatch):
    @T.inline
    def part(out, x, i):
        out[i] = x[i]

    parsed = []
    parse = Source.as_ast
    monkeypatch.setattr(Source, "as_ast", lambda source: parsed.append(source.source) or parse(source))

    @T.prim_func(s_tir=True)
    def func(x: T.Buffer((4,), "float32"), out: T.Buffer((4,), "float32")):
        for i in T.serial(4):
            part(out, x, i)
            part(out, x, i)

    assert func.params
    assert sum("def part" in source and "def func" not in source for source in parsed) == 1


def test_a_part_that_is_called_outside_of_a_kernel_is_an_error():
    with pytest.raises(RuntimeError, match="not available"):
        add_twice(None, None, 0)


def test_expressions_have_the_values_of_python():
    values = {"x": [3, 4], "f": lambda *args, **kwargs: (args, kwargs), "z": 1}
    for text in (
        "x",
        "7",
        "len(x)",
        "x[z]",
        "x[0:1]",
        "f(x, 2, key=z)",
        "f(*x, **{'a': z})",
        "f(x).__class__",
        "[z, -z]",
    ):
        node = doc.parse(text, mode="eval").body
        assert evaluator._eval_expr(node, dict(values)) == eval(text, dict(values))
    for text, error in (("absent", NameError), ("x[5]", IndexError), ("x.absent", AttributeError)):
        with pytest.raises(error):
            evaluator._eval_expr(doc.parse(text, mode="eval").body, dict(values))


def test_the_stack_holds_the_callers_of_a_kernel():
    stack = entry.inspect.stack()
    expected = inspect.stack()
    assert [each.function for each in stack] == [each.function for each in expected]
    assert [each.frame for each in stack] == [each.frame for each in expected]
    assert stack[1].code_context == expected[1].code_context and stack[1].index == expected[1].index
