"""Build a candidate, check its instructions, and time it in a separate process or on a board.

Timing, time limits and the RPC tracker are MetaSchedule's.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.s_tir.meta_schedule import arg_info
from tvm.s_tir.meta_schedule.runner import EvaluatorConfig, LocalRunner, PyRunner, RPCConfig, RPCRunner, RunnerInput
from tvm.tirx import Var

from tvm_ahcq.errors import TuningError
from tvm_ahcq.kernels import grouped_linear
from tvm_ahcq.kernels.gemm.tiling import LinearSchedule
from tvm_ahcq.runtime.cpu import request_amx
from tvm_ahcq.target import HostTarget, link_options
from tvm_ahcq.tune.records import LinearWorkload, Record

INSTRUCTIONS = {
    "amx": "tdpbusd",
    "avx512vnni": "vpdpbusd",
    "avxvnni": "vpdpbusd",
    "avx2": "vpmaddubsw",
    "neon-dot": "sdot",
    "neon": "smlal",
}
"""Instruction that the code for each instruction set must contain; without it, the schedule was not applied."""

_TIMING = EvaluatorConfig(number=1, repeat=5, min_repeat_ms=20)
_SECONDS = 60


@dataclass(frozen=True)
class Tracker:
    """An RPC tracker, and the key of the boards to ask it for."""

    host: str
    port: int
    key: str


def make_runner(target: HostTarget, tracker: Tracker | None = None) -> PyRunner:
    """Return the runner of candidates: a process of this machine, or boards that a tracker knows."""
    # TVM's worker processes import it when they are collected; Python 3.11 fails if another import is under way then
    import_module("psutil")
    if tracker is None:
        prepare = request_amx if "amx-tile" in target.cpu_features else None
        return LocalRunner(
            timeout_sec=_SECONDS, evaluator_config=_TIMING, f_alloc_argument=_arguments, initializer=prepare
        )
    config = RPCConfig(tracker.host, tracker.port, tracker.key, session_timeout_sec=_SECONDS)
    return RPCRunner(config, evaluator_config=_TIMING, f_alloc_argument=_remote_arguments, max_workers=1)


def _arguments(device: Any, infos: Sequence[Any], _repeat: int) -> list[list[Any]]:
    """Arguments of a grouped GEMM: codes and weights of four bits, groups of about equal size."""
    rng, arrays = np.random.default_rng(0), []
    shapes = [tuple(info[2]) for info in infos]
    (rows, channels), groups = shapes[0], shapes[2][0] - 1
    arrays.append(rng.integers(0, 16, (rows, channels), dtype=np.uint8))
    arrays.append(rng.integers(-8, 8, shapes[1]).astype(np.int8))
    arrays.append(np.array([channels * g // groups // 4 * 4 for g in range(groups + 1)], np.int32))
    arrays += [np.ones(shapes[3], np.float32), np.ones(shapes[4], np.int32), np.zeros(shapes[5], np.float32)]
    arrays.append(np.zeros(shapes[6], np.float32))
    return [[tvm.runtime.tensor(array, device) for array in arrays]]


def _remote_arguments(_session: Any, device: Any, infos: Sequence[Any], repeat: int) -> list[list[Any]]:
    """The same on a board."""
    return _arguments(device, infos, repeat)


def measure(
    target: HostTarget, workload: LinearWorkload, rows: int, schedules: Sequence[LinearSchedule], runner: PyRunner
) -> list[Record]:
    """Time schedules; one that cannot be built or run becomes a record with the reason."""
    records: dict[LinearSchedule, Record] = {}
    with tempfile.TemporaryDirectory(prefix="tvm-ahcq-tune-") as folder:
        waiting: dict[LinearSchedule, RunnerInput] = {}
        for number, schedule in enumerate(schedules):
            try:
                path = _build(target, workload, schedule, Path(folder) / f"{number}.so")
            except (TuningError, tvm.error.InternalError, RuntimeError, ValueError, TypeError) as error:
                records[schedule] = Record(target.name, workload, rows, schedule, None, _reason(error))
            else:
                waiting[schedule] = RunnerInput(str(path), "cpu", _argument_types(workload, rows))
        futures = runner.run(list(waiting.values()))
        for schedule, future in zip(waiting, futures, strict=True):
            result = future.result()
            if result.error_msg is None:
                seconds, reason = min(float(value) for value in result.run_secs), ""
            else:
                seconds, reason = None, str(result.error_msg).strip().splitlines()[-1]
            records[schedule] = Record(target.name, workload, rows, schedule, seconds, reason)
    return [records[schedule] for schedule in schedules]


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[-300:] or type(error).__name__


def _build(target: HostTarget, workload: LinearWorkload, schedule: LinearSchedule, path: Path) -> Path:
    """Compile a candidate to a shared library.

    Raises
    ------
    TuningError
        The instruction that the kernel is written for is not in its code.
    """
    func = grouped_linear(Var("rows", "int64"), workload, target.layout, target, schedule)
    built = tvm.compile(func, target=target.tvm_target())
    check_instruction(target, built.mod.inspect_source("asm"))
    built.export_library(str(path), **link_options(target))
    return path


def check_instruction(target: HostTarget, assembly: str) -> None:
    """Check that the instruction of the target's kernels is in `assembly`.

    Raises
    ------
    TuningError
        The instruction is missing.
    """
    instruction = INSTRUCTIONS[target.isa]
    if instruction not in assembly:
        raise TuningError(f"the code has no {instruction}, which kernels for target {target.name!r} are written for")


def _argument_types(workload: LinearWorkload, rows: int) -> list[arg_info.TensorInfo]:
    n, k, g = workload.outputs, workload.channels, workload.groups
    types = [
        ("uint8", [rows, k]),
        ("int8", [-(-n // 16), k // 4, 16, 4]),
        ("int32", [g + 1]),
        ("float32", [g, n]),
        ("int32", [g, n]),
        ("float32", [n]),
        ("float32", [rows, n]),
    ]
    return [arg_info.TensorInfo(dtype, shape) for dtype, shape in types]
