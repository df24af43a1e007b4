"""Time of every kernel in a compiled function, with the work it does. Imports neither torch nor the compiler."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tvm_ahcq.errors import BundleError

from . import threads
from .instrument import observed
from .session import Session, to_tensor

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class KernelTime:
    """All calls of one kernel with arguments of one shape.

    Attributes
    ----------
    kernel : str
        Its kind: the name in :mod:`tvm_ahcq.kernels`, or those of the operators that TVM fused.
    symbol : str
        Its name in the library.
    shape : str
        Sizes that matter, for people.
    calls : int
        Calls in one run of the function.
    seconds : float
        Time of all of them: the least over the runs.
    macs : int
        Multiply-adds of all of them; 0 where that is not what the kernel does, or not known.
    bytes : int
        Sizes of all their arguments, results included.
    unit : str
        What multiplies: ``"int8"``, ``"float32"``, or "" without multiply-adds.
    """

    kernel: str
    symbol: str
    shape: str
    calls: int
    seconds: float
    macs: int
    bytes: int
    unit: str


@dataclass(frozen=True)
class Profile:
    """Kernels by falling time, and the time of the whole function.

    Attributes
    ----------
    function : str
        Name of the function.
    seconds : float
        Least time of a run; what lies between kernels, and the profiler's own work, included.
    kernels : tuple of KernelTime
        Every kernel that was called.
    """

    function: str
    seconds: float
    kernels: tuple[KernelTime, ...]


def profile(session: Session, function: str, inputs: Sequence[np.ndarray], repeats: int = 3) -> Profile:
    """Run a function and take the time of each kernel.

    Parameters
    ----------
    session : Session
        A loaded bundle.
    function : str
        Name of a function of the model.
    inputs : sequence of numpy.ndarray
        Its inputs, without parameters.
    repeats : int
        Runs after a first one that is not counted; a kernel's time is its least over them.

    Raises
    ------
    BundleError
        The bundle has no function of that name.
    """
    if function not in session.manifest.functions:
        names = ", ".join(session.manifest.functions)
        raise BundleError(f"{session.path}: has no function {function!r}; it has {names}")
    arguments = [to_tensor(array) for array in inputs] + session.parameters(function)
    runs = threads.call(session.num_threads, _runs, session.machine, function, arguments, repeats + 1)[1:]
    return Profile(function, min(seconds for seconds, _ in runs), _summary([calls for _, calls in runs]))


Call = tuple[str, Shapes, int, float]
"""Symbol, shapes and bytes of the arguments, seconds."""


def _runs(machine: Any, function: str, arguments: list[Any], count: int) -> list[tuple[float, list[Call]]]:
    """Seconds and calls of each run; on the thread that the machine belongs to."""
    calls: list[Call] = []
    started = [0.0]

    def observe(symbol: str, before: bool, tensors: list[Any]) -> None:
        now = time.perf_counter()
        if before:
            started[0] = time.perf_counter()
        else:
            shapes = tuple(tuple(map(int, tensor.shape)) for tensor in tensors)
            calls.append((symbol, shapes, sum(map(_size, tensors)), now - started[0]))

    runs = []
    with observed(machine, observe):
        run = machine[function]
        for _ in range(count):
            calls.clear()
            start = time.perf_counter()
            run(*arguments)
            runs.append((time.perf_counter() - start, list(calls)))
    return runs


def _size(tensor: Any) -> int:
    return prod(map(int, tensor.shape)) * np.dtype(str(tensor.dtype)).itemsize


def _summary(runs: list[list[Call]]) -> tuple[KernelTime, ...]:
    """Calls of one kernel and shape together; the least time over the runs."""
    totals: list[dict[tuple[str, Shapes], list[float]]] = []
    for calls in runs:
        total: dict[tuple[str, Shapes], list[float]] = {}
        for symbol, shapes, size, seconds in calls:
            entry = total.setdefault((symbol, shapes), [0.0, 0.0, 0.0])
            entry[0], entry[1], entry[2] = entry[0] + 1, entry[1] + size, entry[2] + seconds
        totals.append(total)
    kernels = []
    for (symbol, shapes), (count, bytes_moved, _) in totals[0].items():
        kind = re.sub(r"_?\d+$", "", symbol)
        macs, unit, shape = _work(kind, shapes)
        seconds = min(total[symbol, shapes][2] for total in totals)
        kernels.append(KernelTime(kind, symbol, shape, int(count), seconds, macs * int(count), int(bytes_moved), unit))
    return tuple(sorted(kernels, key=lambda kernel: -kernel.seconds))


def _work(kind: str, shapes: Shapes) -> tuple[int, str, str]:
    """Multiply-adds, their unit, and the sizes that matter, of one call."""
    if not shapes:
        return 0, "", ""
    first, last = shapes[0], shapes[-1]
    if kind in ("linear_add", "linear_codes", "linear_heads", "linear_intervals"):
        outputs = shapes[5][0]  # of the bias
        return first[0] * first[1] * outputs, "int8", f"{first[0]} x {outputs} x {first[1]}"
    if kind in ("grouped_linear", "matmul"):
        unit = "int8" if kind == "grouped_linear" else "float32"
        return first[0] * first[1] * last[1], unit, f"{first[0]} x {last[1]} x {first[1]}"
    if kind == "log_attention":
        heads, queries, channels = first[-3:]
        keys = queries if len(first) == 4 else shapes[1][-2]
        return 2 * heads * queries * keys * channels, "int8", f"{heads} heads, {queries} x {keys} x {channels}"
    return 0, "", " x ".join(map(str, last))
