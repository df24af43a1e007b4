"""Behaviour of ``TorchExecutor`` itself; operators have their own test."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
import tvm
from tvm import relax, tirx

from tvm_ahcq.errors import UnsupportedModelError
from tvm_ahcq.models.sam.export import export_function
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.torch_exec.executor import TorchExecutor, torch_op
from tvm_ahcq.torch_exec.registry import TORCH_OPS


def linear_chain(steps: int, size: int = 1000) -> tvm.IRModule:
    """``main(x) = x + 1 + ... + 1``."""
    x = relax.Var("x", relax.TensorType((size,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        value = x
        for _ in range(steps):
            value = builder.emit(relax.op.add(value, relax.const(1.0)))
        builder.emit_func_output(value)
    return builder.get()


def weighted(weight_name: str = "block_0_weight") -> tvm.IRModule:
    """``main(x, weight) = relu(x @ weight)``, x of (N, 3), weight of (3, 3)."""
    n = tirx.Var("N", "int64")
    x = relax.Var("x", relax.TensorType((n, 3), "float32"))
    weight = relax.Var(weight_name, relax.TensorType((3, 3), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x, weight]):
        builder.emit_func_output(builder.emit(relax.op.nn.relu(builder.emit(relax.op.matmul(x, weight)))))
    return builder.get()


def test_intermediates_are_freed_after_their_last_use() -> None:
    alive: list[weakref.ref] = []
    most = 0

    def add(attrs: Any, args: Any) -> torch.Tensor:
        nonlocal most
        result = TORCH_OPS["relax.add"](attrs, args)
        alive.append(weakref.ref(result))
        most = max(most, sum(ref() is not None for ref in alive))
        return result

    result = TorchExecutor(linear_chain(40), {}, hooks={"relax.add": add}).run("main", torch.zeros(1000))
    assert result[0] == 40
    assert most == 2  # an operand and its result


def test_a_value_that_nothing_uses_is_freed_at_once() -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit(relax.op.negative(x))
        builder.emit_func_output(builder.emit(relax.op.add(x, x)))
    dropped: list[weakref.ref] = []

    def negative(attrs: Any, args: Any) -> torch.Tensor:
        result = -args[0]
        dropped.append(weakref.ref(result))
        return result

    def add(attrs: Any, args: Any) -> torch.Tensor:
        assert dropped[0]() is None
        return args[0] + args[1]

    TorchExecutor(builder.get(), {}, hooks={"relax.negative": negative, "relax.add": add}).run("main", torch.ones(4))
    assert len(dropped) == 1


def test_gradients_equal_those_of_the_upstream_module() -> None:
    torch.manual_seed(0)
    sam = build_sam_vit_t(
        image_size=64, depth=1, embed_dim=16, num_heads=2, global_attn_indexes=(), window_size=3, prompt_dim=32
    )
    function, names = export_function(sam, "encode_image")
    image = torch.randn(1, 3, 64, 64)
    executor = TorchExecutor(tvm.IRModule({"encode_image": function}), dict(sam.named_parameters()))
    ours = torch.autograd.grad(executor.run("encode_image", image).square().sum(), [executor.params[n] for n in names])
    state = dict(sam.named_parameters())
    theirs = torch.autograd.grad(sam.image_encoder(image).square().sum(), [state[name] for name in names])
    for name, mine, other in zip(names, ours, theirs, strict=True):
        torch.testing.assert_close(mine, other, atol=1e-3, rtol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


def test_gradients_flow_after_a_run_in_inference_mode() -> None:
    executor = TorchExecutor(weighted(), {"block.0.weight": np.eye(3, dtype=np.float32)})
    with torch.inference_mode():
        executor.run("main", torch.ones(2, 3))
    executor.params["block.0.weight"].requires_grad_()
    executor.run("main", torch.ones(2, 3)).sum().backward()
    assert executor.params["block.0.weight"].grad.sum() == 18


def test_a_parameter_may_be_replaced_between_runs() -> None:
    executor = TorchExecutor(weighted(), {"block.0.weight": np.eye(3, dtype=np.float32)})
    x = torch.rand(2, 3)
    torch.testing.assert_close(executor.run("main", x), x)
    executor.params["block.0.weight"] = 2 * torch.eye(3)
    torch.testing.assert_close(executor.run("main", x), 2 * x)


def test_arrays_are_shared_even_when_read_only(recwarn: pytest.WarningsRecorder) -> None:
    weight = np.eye(3, dtype=np.float32)
    weight.flags.writeable = False
    executor = TorchExecutor(weighted(), {"block.0.weight": weight})
    assert executor.params["block.0.weight"].data_ptr() == weight.ctypes.data
    assert not recwarn.list


def test_inputs_are_not_written_to() -> None:
    x = -np.ones((2, 3), np.float32)
    TorchExecutor(weighted(), {"block.0.weight": np.eye(3, dtype=np.float32)}).run("main", x)
    assert (x == -1).all()


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_symbolic_dimensions_are_read_off_the_inputs(rows: int) -> None:
    executor = TorchExecutor(weighted(), {"block.0.weight": np.eye(3, dtype=np.float32)})
    assert executor.run("main", torch.ones(rows, 3)).shape == (rows, 3)


def test_symbolic_shape_arithmetic() -> None:
    n, m = tirx.Var("N", "int64"), tirx.Var("M", "int64")
    x = relax.Var("x", relax.TensorType((n, m), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        doubled = builder.emit(relax.op.concat((x, x), 0))
        flat = builder.emit(relax.op.reshape(doubled, (n * m * 2,)))
        spread = builder.emit(relax.op.broadcast_to(flat, (tirx.floordiv(n + 1, 2), m - 1, tirx.max(n * m * 2, 1))))
        builder.emit_func_output(spread)
    assert TorchExecutor(builder.get(), {}).run("main", torch.ones(3, 4)).shape == (2, 3, 24)


def test_match_cast_binds_dimensions() -> None:
    n, k = tirx.Var("N", "int64"), tirx.Var("K", "int64")
    x = relax.Var("x", relax.TensorType((n,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        cast = builder.match_cast(builder.emit(relax.op.add(x, x)), relax.TensorType((k,), "float32"))
        builder.emit_func_output(builder.emit(relax.op.reshape(cast, (k, 1))))
    assert TorchExecutor(builder.get(), {}).run("main", torch.ones(7)).shape == (7, 1)


def test_calls_of_other_functions_are_refused() -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        packed = relax.call_dps_packed("elsewhere", (x,), relax.TensorType((4,), "float32"))
        builder.emit_func_output(builder.emit(packed))
    with pytest.raises(UnsupportedModelError, match=r"relax\.call_dps_packed has no torch implementation"):
        TorchExecutor(builder.get(), {}).run("main", torch.ones(4))


def test_several_results_come_as_a_tuple() -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        parts = builder.emit(relax.op.split(x, 2))
        builder.emit_func_output((builder.emit(relax.TupleGetItem(parts, 1)), x))
    second, same = TorchExecutor(builder.get(), {}).run("main", torch.arange(4.0))
    assert second.tolist() == [2, 3] and same.tolist() == [0, 1, 2, 3]


def test_hooks_replace_a_handler_in_one_executor_only() -> None:
    hooked = TorchExecutor(linear_chain(3), {}, hooks={"relax.add": lambda attrs, args: args[0] * 2})
    assert hooked.run("main", torch.ones(1000))[0] == 8
    assert TorchExecutor(linear_chain(3), {}).run("main", torch.ones(1000))[0] == 4


def test_attributes_reach_the_handler_as_plain_python() -> None:
    seen = {}

    def split(attrs: Any, args: Any) -> tuple[torch.Tensor, ...]:
        seen.update(vars(attrs))
        return args[0].split(2)

    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.split(x, [2], 0)))
    TorchExecutor(builder.get(), {}, hooks={"relax.split": split}).run("main", torch.ones(4))
    assert seen == {"indices_or_sections": (2,), "axis": 0}
    assert type(seen["indices_or_sections"]) is tuple and type(seen["axis"]) is int


def test_registered_handlers_are_found_by_name() -> None:
    x = relax.Var("x", relax.TensorType((4,), "float32"))
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        builder.emit_func_output(builder.emit(relax.op.asinh(x)))
    executor = TorchExecutor(builder.get(), {})
    with pytest.raises(UnsupportedModelError, match=r"relax\.asinh.*@torch_op\('relax\.asinh'\)"):
        executor.run("main", torch.ones(4))
    try:
        torch_op("relax.asinh")(lambda attrs, args: args[0].asinh())
        torch.testing.assert_close(executor.run("main", torch.ones(4)), torch.ones(4).asinh())
    finally:
        TORCH_OPS.pop("relax.asinh")


def test_mistakes_in_a_call_are_named() -> None:
    executor = TorchExecutor(weighted(), {"block.0.weight": np.eye(3, dtype=np.float32)})
    with pytest.raises(UnsupportedModelError, match="main takes 1 inputs"):
        executor.run("main")
    with pytest.raises(UnsupportedModelError, match=r"input x has shape \(2, 4\)"):
        executor.run("main", torch.ones(2, 4))
    with pytest.raises(UnsupportedModelError, match="no Relax function 'encode'; the module has main"):
        executor.run("encode", torch.ones(2, 3))


def test_a_parameter_without_a_value_is_named() -> None:
    function = weighted()["main"].with_attr("num_input", 1)
    with pytest.raises(UnsupportedModelError, match="no value for the parameters block_0_weight"):
        TorchExecutor(tvm.IRModule({"main": function}), {}).run("main", torch.ones(2, 3))
