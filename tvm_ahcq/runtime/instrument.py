"""Calls of the virtual machine, seen one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .ffi import tvm_ffi

Observer = Callable[[str, bool, list[Any]], None]
"""Called with the symbol, True before the call and False after it, and the tensors among its arguments."""

_BUILTIN = "vm.builtin"
"""Prefix of the machine's own functions, which are not observed."""


@contextmanager
def observed(machine: Any, observer: Observer) -> Iterator[None]:
    """Call `observer` before and after every call that a virtual machine makes to a kernel, on the machine's thread."""

    def instrument(_func: Any, symbol: str, before: bool, _result: Any, *args: Any) -> int:
        if not symbol.startswith(_BUILTIN):
            observer(str(symbol), bool(before), [arg for arg in args if isinstance(arg, tvm_ffi().Tensor)])
        return 0

    machine["set_instrument"](tvm_ffi().convert(instrument))
    try:
        yield
    finally:
        machine["set_instrument"](tvm_ffi().convert(_ignore))


def _ignore(*_: Any) -> int:
    """An instrument that does nothing: the machine has no way to take one out."""
    return 0
