"""Threads of compiled functions: one for each thread count, each with its own TVM worker pool.

TVM keeps a worker pool per calling thread and never frees it, and takes only half of the CPUs on x86 by default. A
server that calls from many threads would start a pool in each. So calls are handed to one thread, whose pool is set up
once; calls of concurrent predictors queue there instead of competing for the same cores.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import ParamSpec, TypeVar, cast

from tvm_ahcq.errors import DeviceError

from .cpu import default_threads
from .ffi import tvm_ffi, tvm_runtime

_ANY_CORE = -3
"""``kSpecifyThreadShareAllCore`` of TVM: workers float over the given CPUs instead of being pinned to the first ones,
where they would collide with those of other processes."""

P = ParamSpec("P")
R = TypeVar("R")


def thread_count(requested: int | None) -> int:
    """Threads to use: `requested`, else ``TVM_NUM_THREADS``, else the physical cores this process may use.

    Raises
    ------
    DeviceError
        The number is not a positive integer.
    """
    source, value = "num_threads", cast("int | str | None", requested)
    if value is None:
        source, value = "TVM_NUM_THREADS", os.environ.get("TVM_NUM_THREADS") or default_threads()
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise DeviceError(f"{source} is {value!r}; expected a positive number of threads")
    return count


def call(num_threads: int, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """Run a function on the thread whose pool has `num_threads` workers (at most the CPUs allowed)."""
    # a thread does not survive fork(), so a forked child makes its own
    return _runner(num_threads, os.getpid()).submit(function, *args, **kwargs).result()


@cache
def _runner(num_threads: int, process: int) -> ThreadPoolExecutor:
    runner = ThreadPoolExecutor(1, thread_name_prefix=f"tvm-ahcq-{num_threads}")
    runner.submit(_configure, num_threads).result()
    return runner


def _configure(num_threads: int) -> None:
    """Set up the pool of the current thread; has no effect on one that has already run a parallel kernel."""
    tvm_runtime()
    configure = tvm_ffi().get_global_func("runtime.config_threadpool")
    try:
        allowed = sorted(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        configure(1, num_threads)
    else:
        configure(_ANY_CORE, min(num_threads, len(allowed)), [str(number) for number in allowed])
