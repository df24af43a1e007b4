"""TVM's BYOC entry point ``relax.ext.ahcq``: composite functions in, one runtime module out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import tvm_ffi
from tvm import relax

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.offloaded_op import OffloadedOp
from tvm_ahcq.codegen.lower.program_image import program_image
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.ffi import ahcq_library

_offloaded: ContextVar[tuple[Config, Mapping[str, OffloadedOp]] | None] = ContextVar("offloaded", default=None)


@contextmanager
def offloaded_operators(config: Config, operators: Mapping[str, OffloadedOp]) -> Iterator[None]:
    """Context in which :func:`generate` takes the programs of `operators`, by symbol.

    The partition lowers operators before TVM's passes run, since programs decide where operators go; it has their
    weights as codes, which a Relax module cannot hold.
    """
    token = _offloaded.set((config, operators))
    try:
        yield
    finally:
        _offloaded.reset(token)


@tvm_ffi.register_global_func("relax.ext.ahcq")
def generate(
    functions: Sequence[relax.Function], _options: Mapping[str, Any], _constant_names: Mapping[Any, str]
) -> list[tvm_ffi.Module]:
    """Return one module that has all functions.

    Parameters
    ----------
    functions : sequence of Function
        Each around one composite function, as ``MergeCompositeFunctions`` leaves them.

    Raises
    ------
    DeviceError
        If a function was not lowered before.
    """
    context = _offloaded.get()
    symbols = [str(func.attrs["global_symbol"]) for func in functions]
    if context is None or not set(symbols) <= set(context[1]):
        raise DeviceError(
            f"{', '.join(symbols)}: not lowered for the accelerator; partition the module with partition_for_ahcq"
        )
    config, operators = context
    data = program_image(config, {symbol: operators[symbol] for symbol in symbols})
    return [ahcq_library().get_global_func("ahcq.accelerator_module")(data)]
