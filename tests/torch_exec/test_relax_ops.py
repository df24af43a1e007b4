"""Every registered Relax operator against the same operator compiled by TVM."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.torch_exec.executor import TorchExecutor
from tvm_ahcq.torch_exec.registry import TORCH_OPS

op, nn = relax.op, relax.op.nn


def tensor(*shape: int) -> np.ndarray:
    """Positive and negative values; the same for the same shape."""
    return np.random.default_rng(len(shape)).uniform(-2, 2, shape).astype(np.float32)


A, B, ROW = tensor(2, 3, 4), tensor(2, 3, 4)[:, ::-1].copy(), tensor(4)
POSITIVE, IMAGE, TRUTH = np.abs(A) + 0.5, tensor(1, 3, 6, 6), A > 0
CODES, INDEX = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([[2, 0], [1, 1]], np.int64)

Case = tuple[Callable[..., relax.Expr], tuple[np.ndarray, ...]]


def reductions(reduce: Callable[..., relax.Expr]) -> list[Case]:
    """Over one kept axis, over two, and over all."""
    return [(lambda x: reduce(x, [1], keepdims=True), (A,)), (lambda x: reduce(x, [0, -1]), (A,)), (reduce, (A,))]


CASES: dict[str, list[Case]] = {
    **{
        name: [(getattr(op, name), (A, ROW)), (getattr(op, name), (A, B))]
        for name in (
            "add",
            "subtract",
            "multiply",
            "divide",
            "maximum",
            "minimum",
            "floor_divide",
            "floor_mod",
            "equal",
            "not_equal",
            "less",
            "less_equal",
            "greater",
            "greater_equal",
        )
    },
    "power": [(lambda x: op.power(x, relax.const(2.0)), (A,))],
    **{name: [(getattr(op, name), (TRUTH, TRUTH[::-1].copy()))] for name in ("logical_and", "logical_or")},
    "logical_not": [(op.logical_not, (TRUTH,))],
    **{name: [(getattr(op, name), (CODES, CODES[::-1].copy()))] for name in ("bitwise_and", "bitwise_or")},
    **{
        name: [(getattr(op, name), (A,))]
        for name in (
            "negative",
            "abs",
            "square",
            "exp",
            "sin",
            "cos",
            "tanh",
            "erf",
            "sigmoid",
            "floor",
            "ceil",
            "sign",
            "zeros_like",
            "ones_like",
        )
    },
    "round": [(op.round, (np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 0.4], np.float32),))],
    **{name: [(getattr(op, name), (POSITIVE,))] for name in ("sqrt", "rsqrt", "log")},
    **{f"nn.{name}": [(getattr(nn, name), (A,))] for name in ("relu", "gelu", "gelu_tanh", "silu")},
    "where": [(op.where, (TRUTH, A, ROW))],
    "reshape": [(lambda x: op.reshape(x, (4, 6)), (A,))],
    "broadcast_to": [(lambda x: op.broadcast_to(x, (2, 3, 4)), (ROW,))],
    "matmul": [
        (op.matmul, (A, tensor(4, 5))),
        (op.matmul, (tensor(1, 2, 3, 4), tensor(5, 1, 4, 3))),
        (lambda x, w: op.matmul(x, w, "int32"), (CODES, CODES[0].T.copy())),
    ],
    "einsum": [(lambda x, w: op.einsum((x, w), "bhc,hkc->bhk"), (A, tensor(3, 5, 4)))],
    "astype": [(lambda x: op.astype(x, "int32"), (A,)), (lambda x: op.astype(x, "float32"), (CODES,))],
    "permute_dims": [(op.permute_dims, (A,)), (lambda x: op.permute_dims(x, [1, -1, 0]), (A,))],
    "expand_dims": [(lambda x: op.expand_dims(x, [1, -1]), (A,))],
    "squeeze": [(op.squeeze, (tensor(1, 3, 1),)), (lambda x: op.squeeze(x, [0]), (tensor(1, 3, 1),))],
    "flatten": [(op.flatten, (A,))],
    "concat": [(lambda x, y: op.concat((x, y), -1), (A, B))],
    "stack": [(lambda x, y: op.stack((x, y), 1), (A, B))],
    "split": [(lambda x: op.split(x, 3, 1), (A,)), (lambda x: op.split(x, [1, 3], -1), (A,))],
    "strided_slice": [
        (lambda x: op.strided_slice(x, [1, 2], [-2, 0], [3, 100]), (A,)),
        (lambda x: op.strided_slice(x, [2], [1], [4], [2]), (A,)),
    ],
    "take": [
        (lambda x: op.take(x, relax.const(INDEX), 1, "clip"), (A,)),
        (lambda x: op.take(x, relax.const(1, "int64"), 1, "clip"), (A,)),
        (lambda x: op.take(x, relax.const(INDEX), None, "clip"), (ROW,)),
    ],
    "tile": [(lambda x: op.tile(x, (2, 1, 3)), (A,))],
    "repeat": [(lambda x: op.repeat(x, 2, 1), (A,))],
    "cumsum": [(lambda x: op.cumsum(x, 1), (A,))],
    "clip": [(lambda x: op.clip(x, -0.5, 1), (A,))],
    **{name: reductions(getattr(op, name)) for name in ("mean", "sum", "max", "min")},
    "arange": [(lambda: op.arange(1, 9, 2, "int64"), ())],
    "full": [(lambda: op.full((2, 3), relax.const(1.5), "float32"), ())],
    "full_like": [(lambda x: op.full_like(x, relax.const(1.5)), (A,))],
    "zeros": [(lambda: op.zeros((2, 3), "int32"), ())],
    "ones": [(lambda: op.ones((2, 3), "float32"), ())],
    "nn.softmax": [(lambda x: nn.softmax(x, 1), (A,))],
    "nn.layer_norm": [
        (lambda x, g, b: nn.layer_norm(x, g, b, -1, 1e-6), (A, ROW, ROW[::-1].copy())),
        (lambda x, g, b: nn.layer_norm(x, g, b, [-2, -1]), (A, B[0], A[1])),
    ],
    "nn.pad": [(lambda x: nn.pad(x, [0, 0, 1, 2, 0, 3], pad_value=0.5), (A,))],
    "nn.conv2d": [
        (lambda x, w: nn.conv2d(x, w, strides=2), (IMAGE, tensor(5, 3, 2, 2))),
        (lambda x, w: nn.conv2d(x, w, padding=1), (IMAGE, tensor(5, 3, 3, 3))),
    ],
    "nn.conv2d_transpose": [(lambda x, w: nn.conv2d_transpose(x, w, strides=2), (IMAGE, tensor(3, 5, 2, 2)))],
    "nn.max_pool2d": [(lambda x: nn.max_pool2d(x, pool_size=(2, 2), strides=(2, 2)), (IMAGE,))],
    "image.resize2d": [
        (
            lambda x: op.image.resize2d(
                x, (12, 9), layout="NCHW", method="linear", coordinate_transformation_mode="half_pixel"
            ),
            (IMAGE,),
        )
    ],
}


def function_of(case: Case) -> relax.Function:
    build, values = case
    variables = [relax.Var(f"x{i}", relax.TensorType(v.shape, str(v.dtype))) for i, v in enumerate(values)]
    builder = relax.BlockBuilder()
    with builder.function("main", variables):
        builder.emit_func_output(builder.emit(build(*variables)))
    return builder.get()["main"]


@pytest.fixture(scope="module")
def module() -> tvm.IRModule:
    """All cases as functions ``f0``, ``f1``, ... of one module, so that TVM compiles once."""
    cases = [case for group in CASES.values() for case in group]
    return tvm.IRModule({f"f{i}": function_of(c).with_attr("global_symbol", f"f{i}") for i, c in enumerate(cases)})


@pytest.fixture(scope="module")
def machine(module: tvm.IRModule) -> relax.VirtualMachine:
    target = tvm.target.Target({"kind": "llvm", "num-cores": 1, "opt-level": 0})
    return relax.VirtualMachine(tvm.compile(module, target=target), tvm.cpu())


NUMBERED = [
    (f"f{i}", name, case[1])
    for i, (name, case) in enumerate((name, case) for name, group in CASES.items() for case in group)
]


@pytest.mark.parametrize(("function", "name", "values"), NUMBERED, ids=[f"{n}-{f}" for f, n, _ in NUMBERED])
def test_operator_equals_tvm(
    module: tvm.IRModule, machine: relax.VirtualMachine, function: str, name: str, values: tuple[np.ndarray, ...]
) -> None:
    theirs = machine[function](*map(tvm.runtime.tensor, values))
    ours = TorchExecutor(module, {}).run(function, *values)
    pairs = zip(ours, theirs, strict=True) if isinstance(ours, tuple) else [(ours, theirs)]
    for mine, other in pairs:
        expected = other.numpy()
        assert str(mine.dtype).removeprefix("torch.") == str(expected.dtype)
        np.testing.assert_allclose(mine.numpy(), expected, rtol=1e-5, atol=1e-5)


def test_every_registered_operator_has_a_case() -> None:
    own = {name for name in TORCH_OPS if not name.startswith("relax.ahcq.")}
    assert own == {f"relax.{name}" for name in CASES}


@pytest.mark.parametrize(
    "build",
    [
        lambda x: nn.pad(x, [0, 0, 0, 0, 1, 1, 1, 1], pad_mode="reflect"),
        lambda x: nn.conv2d(x, relax.const(tensor(5, 3, 2, 2)), padding=(0, 0, 1, 1)),
        lambda x: op.image.resize2d(x, (9, 9), layout="NCHW", method="cubic"),
        lambda x: nn.max_pool2d(x, pool_size=(3, 3), strides=(2, 2), padding=(1, 1)),
        lambda x: nn.layer_norm(x, relax.const(ROW[:3]), relax.const(ROW[:3]), 1),
    ],
    ids=["pad", "conv2d", "resize2d", "max_pool2d", "layer_norm"],
)
def test_unsupported_options_are_refused_rather_than_ignored(build: Callable) -> None:
    module = tvm.IRModule({"main": function_of((build, (IMAGE,)))})
    with pytest.raises(UnsupportedModelError):
        TorchExecutor(module, {}).run("main", torch.from_numpy(IMAGE))
