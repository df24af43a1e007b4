"""Kernels that one round of legalisation calls, and the registry of operators that are lowered to them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import replace

import tvm
from tvm import relax, tirx

from tvm_ahcq.kernels.common.dot4 import DOT4_ISAS
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.relay_passes.shapes import dims, sizes
from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import Tuning

from .kernel_table import with_description

ANY_ROWS = tirx.Var("rows", "int64")
"""Row count of kernels on matrices: they take any number of rows, so only the other sizes tell kernels apart."""

OPAQUE = 8
"""TVM's operator pattern of kernels that nothing fuses with."""


class KernelBuilder:
    """Collects the kernels that the functions of a module call; equal kernels are built once.

    Parameters
    ----------
    target : HostTarget
        Processor that the kernels are for.
    tuning : Tuning
        Schedules of the kernels.
    used_names : iterable of str
        Names that no kernel may take.
    """

    def __init__(self, target: HostTarget, tuning: Tuning, used_names: Iterable[str]):
        self.target, self.tuning = target, tuning
        self._used_names = set(used_names)
        self._builder = relax.BlockBuilder()
        self._kernels: dict[str, tvm.ir.GlobalVar] = {}

    def call(self, factory: Callable, options: tuple, args: list[relax.Expr], shape: list, dtype: str) -> relax.Call:
        """Call the kernel ``factory(*options)`` with output type (`shape`, `dtype`)."""
        key = factory.__name__ + repr(options)  # expressions have no equality of their own
        if key not in self._kernels:
            name = next(n for i in itertools.count() if (n := f"{factory.__name__}_{i}") not in self._used_names)
            self._used_names.add(name)
            kernel = factory(*options).with_attr("global_symbol", name).with_attr("op_pattern", OPAQUE)
            self._kernels[key] = self._builder.add_func(with_description(kernel, factory, options), name)
        return relax.call_tir(self._kernels[key], relax.Tuple(args), relax.TensorType(shape, dtype))

    def linear_workload(self, call: relax.Call) -> LinearWorkload:
        """Return the sizes of an ``ahcq.grouped_linear``, and the bounds of its operands where the target uses them.

        The greatest operand counts as 127 or 255, so that layers of one shape share a kernel.
        """
        groups, outputs = sizes(call.args[3])
        workload = LinearWorkload(outputs, int(dims(call.args[0])[-1]), groups, int(call.attrs["weight_bits"]))
        if self.target.isa not in DOT4_ISAS:
            return workload
        operand_max = 127 if int(call.attrs["operand_max"]) <= 127 else 255
        return replace(workload, operand_max=operand_max, exact_steps=int(call.attrs["exact_steps"]))

    def functions(self) -> dict[tvm.ir.GlobalVar, tirx.PrimFunc]:
        """Kernels built so far."""
        return dict(self._builder.get().functions)


Handler = Callable[[KernelBuilder, relax.Call], relax.Expr | None]

HANDLERS: dict[str, Handler] = {}
"""Function that lowers a call, by the name of the operator."""


def legalises(*names: str) -> Callable[[Handler], Handler]:
    """Decorator: register a function that returns the lowered form of a call, or None to leave the call as it is.

    Parameters
    ----------
    *names : str
        Operators whose calls the function lowers.
    """

    def register(handler: Handler) -> Handler:
        HANDLERS.update(dict.fromkeys(names, handler))
        return handler

    return register
