"""TVM's BYOC entry point ``relax.ext.ahcq``: composite functions in, one runtime module out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import tvm_ffi
from tvm import relax
from tvm.ir import GenericConst

from tvm_ahcq.codegen.isa.config import Config, named
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.program_image import program_image
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.ffi import ahcq_library

from .patterns import lower

DEFAULT_CONFIG = "ecp5_16x16"

_planned: ContextVar[tuple[Config, Mapping[str, OffloadedOp]] | None] = ContextVar("planned", default=None)


@contextmanager
def using(config: Config, planned: Mapping[str, OffloadedOp]) -> Iterator[None]:
    """Within, code is generated for `config`; operators that are in `planned`, by symbol, are not lowered again."""
    token = _planned.set((config, planned))
    try:
        yield
    finally:
        _planned.reset(token)


@tvm_ffi.register_global_func("relax.ext.ahcq")
def generate(
    functions: Sequence[relax.Function], options: Mapping[str, Any], _constant_names: Mapping[Any, str]
) -> list[tvm_ffi.Module]:
    """One module that has all functions.

    Parameters
    ----------
    functions : sequence of Function
        Each around one composite function, as ``MergeCompositeFunctions`` leaves them.
    options : mapping
        Of ``RunCodegen``: "config", the name of the accelerator's configuration.

    Raises
    ------
    DeviceError
        If a function does not fit the accelerator.
    """
    config, planned = _planned.get() or (named(str(options.get("config", DEFAULT_CONFIG))), {})
    lowered = {str(func.attrs["global_symbol"]): _lower(config, func, planned) for func in functions}
    return [ahcq_library().get_global_func("ahcq.accelerator_module")(program_image(config, lowered))]


def _lower(config: Config, func: relax.Function, planned: Mapping[str, OffloadedOp]) -> OffloadedOp:
    kind, composite = _composite(func)
    calls = [binding.value for block in composite.body.blocks for binding in block.bindings]
    calls = [call for call in calls if isinstance(call, relax.Call)]
    symbol = str(func.attrs["global_symbol"])
    if symbol in planned:
        return planned[symbol]
    constants = [[arg.value.numpy() for arg in call.args if isinstance(arg, GenericConst)] for call in calls]
    return lower(config, kind, calls, constants)


def _composite(func: relax.Function) -> tuple[str, relax.Function]:
    """The one composite function inside, whose parameters are those of `func`, in order."""
    inner = [binding.value for block in func.body.blocks for binding in block.bindings]
    functions = [value for value in inner if isinstance(value, relax.Function)]
    calls = [value for value in inner if isinstance(value, relax.Call)]
    if len(functions) != 1 or len(calls) != 1 or list(calls[0].args) != list(func.params):
        raise DeviceError(f"{func.attrs['global_symbol']} has {len(functions)} composite functions; one was expected.")
    return str(functions[0].attrs["Composite"]), functions[0]


def constants_of(values: Mapping[str, np.ndarray], arguments: Sequence[relax.Expr]) -> list[np.ndarray] | None:
    """Arguments as numbers: constants, and variables that `values` has by name; None if there is another one."""
    found = []
    for arg in arguments:
        if isinstance(arg, GenericConst):
            found.append(arg.value.numpy())
        elif isinstance(arg, relax.Var) and arg.name in values:
            found.append(values[arg.name])
        else:
            return None
    return found
