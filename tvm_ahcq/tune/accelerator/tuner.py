"""The loop for an accelerator: operators of a bundle, tiles, simulated cycles, records."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tvm.s_tir.meta_schedule.runner import PyRunner

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.tiles import Tile
from tvm_ahcq.errors import DeviceError, TuningError
from tvm_ahcq.runtime.bundle import Bundle
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.operator_shapes import AttentionShape, Shape
from tvm_ahcq.tune.host.search import next_candidates
from tvm_ahcq.tune.host.tuner import BATCH, SearchState, prepare_folder
from tvm_ahcq.tune.records import FILE, append

from .programs import TileTask
from .records import TileRecord, fewest_cycles, read_tiles
from .runner import measure_tiles


@dataclass(frozen=True)
class TileSearchState(SearchState):
    """State of the search for one shape, in cycles.

    Attributes
    ----------
    too_large, hopeless : int
        Combinations that were never candidates: they do not fit the scratchpads, or cannot be faster.
    tile : Tile or None
        The best so far.
    reason : str
        Reason why there is nothing to tune: the operator does not fit the accelerator.
    """

    too_large: int = 0
    hopeless: int = 0
    tile: Tile | None = None
    reason: str = ""


def bundle_shapes(bundle: Bundle, config: Config) -> list[Shape]:
    """Return the shapes of a bundle's operators on the accelerator, each once, the largest first.

    Raises
    ------
    BundleError
        The bundle's report is damaged.
    TuningError
        The bundle has nothing for this configuration, or does not say what.
    """
    stored = bundle.manifest.accelerator
    if stored is None:
        raise TuningError(
            f"{bundle.path} has no programs for an accelerator; compile it with --accelerator "
            f"{config.name}, or give --model instead of a bundle"
        )
    report = OffloadReport.from_dict(stored)
    if report.config_hash != config.hash:
        raise TuningError(
            f"{bundle.path} was compiled for the accelerator {report.config} ({report.config_hash:#010x}"
            f"), not for {config.name} ({config.hash:#010x})"
        )
    shapes = dict.fromkeys(shape for decision in report.offloaded() for shape in decision.shapes)
    if not shapes:
        raise TuningError(f"{bundle.path} does not say what its programs compute; compile it again with this version")
    return sorted(shapes, key=_multiply_adds, reverse=True)


def _multiply_adds(shape: Shape) -> int:
    if isinstance(shape, AttentionShape):
        return 2 * shape.heads * shape.queries * shape.keys * shape.channels
    return shape.rows * shape.outputs * shape.channels


def tune_tiles(
    config: Config,
    shapes: Iterable[Shape],
    trials: int,
    folder: Path,
    runner: PyRunner,
    resume: bool = False,
    progress: Callable[[TileSearchState], None] = lambda _: None,
) -> list[TileSearchState]:
    """Measure tiles of each shape; every measurement is on disk before the next begins.

    Parameters
    ----------
    config : Config
        Accelerator.
    shapes : iterable of Shape
        Operators.
    trials : int
        Candidates of each, those of earlier runs included.
    folder : Path
        Where records are, or will be; those of processors may be there too.
    runner : PyRunner
        Runs programs: :class:`tvm_ahcq.tune.accelerator.runner.CycleRunner`.
    resume : bool
        True to continue with the records in `folder`; else there must be none.
    progress : callable
        Told after every batch.

    Returns
    -------
    list of TileSearchState
        Result of each search.

    Raises
    ------
    TuningError
        There are records that were not to be resumed, or a default fails.
    """
    prepare_folder(folder, resume)
    earlier = (
        [record for record in read_tiles(folder) if record.config_hash == config.hash]
        if (folder / FILE).exists()
        else []
    )
    states = []
    for shape in shapes:
        records = [record for record in earlier if record.shape == shape]
        states.append(_search(TileTask(config, shape), trials, folder, runner, records, progress))
    return states


def _search(
    task: TileTask,
    trials: int,
    folder: Path,
    runner: PyRunner,
    records: list[TileRecord],
    progress: Callable[[TileSearchState], None],
) -> TileSearchState:
    try:
        space = task.space
    except DeviceError as error:
        state = TileSearchState(task.shape, 0, 0, 0, None, None, reason=str(error))
        progress(state)
        return state
    known = set(space.tiles)
    costs: dict[Tile, int | None] = {record.tile: record.cycles for record in records if record.tile in known}
    rng, total = np.random.default_rng(len(costs)), min(trials, len(space.tiles))
    while (missing := total - len(costs)) > 0:
        chosen = next_candidates(space.tiles, space.features, costs, min(BATCH, missing), rng)
        new = measure_tiles(task, chosen, runner)
        append(folder, new)
        records += new
        costs |= {record.tile: record.cycles for record in new}
        if costs[space.tiles[0]] is None:
            raise TuningError(f"{task.shape}: the default tile fails on {task.config.name}: {new[0].error}")
        progress(_state(task, records, costs, total))
    return _state(task, records, costs, total)


def _state(task: TileTask, records: list[TileRecord], costs: dict[Tile, int | None], total: int) -> TileSearchState:
    cycles = [count for count in costs.values() if count is not None]
    return TileSearchState(
        task.shape,
        len(costs),
        total,
        len(costs) - len(cycles),
        min(cycles, default=None),
        costs.get(task.space.tiles[0]),
        task.space.too_large,
        task.space.hopeless,
        fewest_cycles(records).get(task.shape),
    )
