"""Tuning loop for a processor: workloads of a bundle, candidates, measurements, records."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tvm.s_tir.meta_schedule.runner import PyRunner

from tvm_ahcq.errors import TuningError
from tvm_ahcq.kernels.gemm.tiling import DEFAULT, LinearSchedule, linear_space
from tvm_ahcq.runtime.bundle import MANIFEST, Bundle
from tvm_ahcq.target import HostTarget
from tvm_ahcq.tune.records import FILE, LinearWorkload, Record, Tuning, append, read, read_text

from .measure import INSTRUCTIONS, measure
from .search import load_xgboost, next_candidates

if TYPE_CHECKING:
    from tvm_ahcq.runtime.operator_shapes import Shape

BATCH = 4
"""Candidates that are measured between two updates of the cost model."""


@dataclass(frozen=True)
class SearchState:
    """State of the search for one workload.

    Attributes
    ----------
    workload : LinearWorkload or Shape
        Sizes of the operator.
    trials, total : int
        Candidates measured so far, failed ones included, and candidates to measure.
    failed : int
        Candidates that could not be built or run.
    best, default : float or None
        Least cost so far, and that of the default: seconds of a processor, cycles of an accelerator.
    """

    workload: LinearWorkload | Shape
    trials: int
    total: int
    failed: int
    best: float | None
    default: float | None


def workloads(bundle: Bundle) -> dict[LinearWorkload, int]:
    """Return the grouped GEMMs of a bundle, and the rows that each is tuned for: the tokens of an image."""
    with zipfile.ZipFile(bundle.path) as archive:
        index = json.loads(archive.read(MANIFEST))["tensors"]
    unique = {_workload(info) for info in index.values() if info["kind"] == "qlinear"}
    return dict.fromkeys(sorted(unique, reverse=True), bundle.manifest.model.tokens)


def _workload(info: Mapping[str, Any]) -> LinearWorkload:
    """Return the workload of a weight in a bundle's index; operands are measured with as many bits as weights."""
    outputs, sizes, bits = info["shape"][0], info["group_sizes"], info["bits"]
    return LinearWorkload(outputs, sum(sizes), len(sizes), bits, 2**bits - 1)


def tune(
    target: HostTarget,
    work: dict[LinearWorkload, int],
    trials: int,
    folder: Path,
    runner: PyRunner,
    resume: bool = False,
    progress: Callable[[SearchState], None] = lambda _: None,
) -> list[SearchState]:
    """Measure schedules of each workload; every measurement is stored before the next begins.

    Parameters
    ----------
    target : HostTarget
        Processor to tune for.
    work : dict of LinearWorkload to int
        Workloads, and rows of each.
    trials : int
        Candidates of each workload, those of earlier runs included.
    folder : Path
        Folder of the records.
    runner : PyRunner
        Runs candidates, from :func:`tvm_ahcq.tune.host.measure.make_runner`.
    resume : bool
        True to continue from the records in `folder`; False if there must be none.
    progress : callable
        Called after every batch.

    Returns
    -------
    list of SearchState
        Final state of each search.

    Raises
    ------
    TuningError
        The target has one schedule only, `folder` has records without `resume`, or the default fails.
    """
    if target.isa not in INSTRUCTIONS:
        raise TuningError(f"target {target.name!r} has one schedule only; tune for one of {', '.join(INSTRUCTIONS)}")
    prepare_folder(folder, resume)
    earlier = read(folder) if (folder / FILE).exists() else []
    session = _Session(target, trials, folder, runner, progress)
    return [_search(session, workload, rows, earlier) for workload, rows in work.items()]


@dataclass(frozen=True)
class _Session:
    """Arguments of :func:`tune` that all searches share."""

    target: HostTarget
    trials: int
    folder: Path
    runner: PyRunner
    progress: Callable[[SearchState], None]


def prepare_folder(folder: Path, resume: bool) -> None:
    """Make a folder for records.

    Raises
    ------
    TuningError
        xgboost is not installed, or the folder has records without `resume`.
    """
    load_xgboost()  # fail before any work
    folder.mkdir(parents=True, exist_ok=True)
    lines = len(read_text(folder)) if (folder / FILE).exists() else 0
    if lines and not resume:
        raise TuningError(f"{folder} has {lines} records; go on with --resume, or choose another folder")


def _search(session: _Session, workload: LinearWorkload, rows: int, earlier: Iterable[Record]) -> SearchState:
    """Measure one workload; in the end the winner once more, side by side with the default."""
    target = session.target
    space = linear_space(target)
    features = np.stack([_features(schedule) for schedule in space])
    records = [r for r in earlier if (r.target, r.workload, r.rows) == (target.name, workload, rows)]
    rng, total = np.random.default_rng(len(records)), min(session.trials, len(space))

    def add(candidates: list[LinearSchedule]) -> None:
        new = measure(target, workload, rows, candidates, session.runner)
        append(session.folder, new)
        records.extend(new)
        if new[0].schedule == DEFAULT and new[0].seconds is None:
            raise TuningError(f"{workload}: the default schedule fails on {target.name!r}: {new[0].error}")
        session.progress(_state(workload, records, total))

    while (missing := total - len({record.schedule for record in records})) > 0:
        costs = dict.fromkeys(record.schedule for record in records) | _times(records)
        add(next_candidates(space, features, costs, min(BATCH, missing), rng))
    winner = Tuning.of(records).linear(target, workload)
    if winner != DEFAULT and sum(record.schedule == winner for record in records) == 1:
        add([DEFAULT, winner])  # side by side: the machine may have been busy when the default was measured
    return _state(workload, records, total)


def _features(schedule: LinearSchedule) -> np.ndarray:
    """Return the features of a schedule for the cost model."""
    area = max(schedule.vectors, 1) * max(schedule.tile_rows, 1)
    whole = schedule.block_rows % max(schedule.tile_rows, 1) == 0
    return np.array(
        [schedule.vectors, schedule.tile_rows, np.log2(schedule.block_rows), schedule.rows_first, area, whole],
        np.float64,
    )


def _times(records: Iterable[Record]) -> dict[LinearSchedule, float]:
    """Return the least time of each schedule that ran."""
    times: dict[LinearSchedule, float] = {}
    for record in records:
        if record.seconds is not None:
            times[record.schedule] = min(record.seconds, times.get(record.schedule, record.seconds))
    return times


def _state(workload: LinearWorkload, records: list[Record], total: int) -> SearchState:
    times = _times(records)
    trials, best = len({record.schedule for record in records}), min(times.values(), default=None)
    return SearchState(workload, trials, total, trials - len(times), best, times.get(DEFAULT))
