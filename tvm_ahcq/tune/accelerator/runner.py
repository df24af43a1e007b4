"""Simulated cycles as MetaSchedule's measurement: a runner whose device is the functional simulator.

Its cycle model is that of the RTL: the tests of the accelerator compare the two.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerInput, RunnerResult

from tvm_ahcq.codegen.devices.device import open_device
from tvm_ahcq.codegen.lower.tiles import Tile
from tvm_ahcq.errors import DeviceError

from .programs import TileProgram, TileTask
from .records import TileRecord

_SECONDS = 120.0
"""Longest simulation of a program."""

_PAGE = 4096


@derived_object
class Simulated(PyRunnerFuture):
    """A result that is there at once."""

    def __init__(self, cycles: int | None, error: str = "") -> None:
        super().__init__()
        self.cycles, self.error = cycles, error

    def done(self) -> bool:
        """Return True: it is there at once."""
        return True

    def result(self) -> RunnerResult:
        """Return cycles in the place of seconds, or the error."""
        return RunnerResult(None, self.error) if self.cycles is None else RunnerResult([float(self.cycles)], None)


@derived_object
class CycleRunner(PyRunner):
    """Runs programs that :func:`save` wrote; the "seconds" of its results are cycles of all runs of a program."""

    def run(self, runner_inputs: Sequence[RunnerInput]) -> list[Simulated]:
        """Run programs one after the other: the simulator has threads of its own."""
        return [self._run(Path(str(item.artifact_path))) for item in runner_inputs]

    def _run(self, path: Path) -> Simulated:
        try:
            program = load(path)
            return Simulated(program.runs * simulated_cycles(program))
        except DeviceError as error:
            return Simulated(None, str(error))


def simulated_cycles(program: TileProgram) -> int:
    """Return the cycles of one run on the functional simulator.

    Raises
    ------
    DeviceError
        If the program fails.
    """
    size = -(-(program.base + len(program.data)) // _PAGE) * _PAGE
    with open_device("fsim", program.config, memory_bytes=size) as device:
        device.copy_in(program.base, program.data)
        ended = device.run(program.start, program.length, _SECONDS)
        if ended.error != "none":
            raise DeviceError(f"the program ends with {ended.error} at instruction {ended.error_index}")
        return device.counters()["cycles"]


def save(program: TileProgram, path: Path) -> None:
    """Write a program to a file for the runner."""
    numbers = np.array([program.base, program.start, program.length, program.runs])
    with open(path, "wb") as file:
        np.savez(file, config=np.array(program.config), numbers=numbers, data=np.frombuffer(program.data, np.uint8))


def load(path: Path) -> TileProgram:
    """Return the inverse of :func:`save`."""
    with np.load(path) as stored:
        base, start, length, runs = map(int, stored["numbers"])
        config, data = str(stored["config"]), stored["data"].tobytes()
        return TileProgram(base, data, start, length, config=config, runs=runs)


def measure_tiles(task: TileTask, tiles: Sequence[Tile], runner: PyRunner) -> list[TileRecord]:
    """Measure tiles; a tile that gives no program or fails becomes a record with the reason."""
    cycles: dict[Tile, int] = {}
    errors: dict[Tile, str] = {}
    with tempfile.TemporaryDirectory(prefix="tvm-ahcq-tune-") as folder:
        waiting: dict[Tile, RunnerInput] = {}
        for number, tile in enumerate(tiles):
            path = Path(folder) / f"{number}.npz"
            try:
                save(task.program(tile), path)
            except DeviceError as error:
                errors[tile] = str(error)
            else:
                waiting[tile] = RunnerInput(str(path), "ahcq", [])
        for tile, future in zip(waiting, runner.run(list(waiting.values())), strict=True):
            result = future.result()
            if result.error_msg is None:
                (seconds,) = result.run_secs
                cycles[tile] = round(float(seconds))
            else:
                errors[tile] = str(result.error_msg)
    return [
        TileRecord(task.config.name, task.config.hash, task.shape, tile, cycles.get(tile), errors.get(tile, ""))
        for tile in tiles
    ]
