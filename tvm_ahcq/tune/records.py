"""Records of measurements: one JSON object a line, so that a kill loses at most the line being written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tvm_ahcq.errors import TuningError
from tvm_ahcq.kernels.gemm.tiling import DEFAULT, LinearSchedule
from tvm_ahcq.kernels.gemm.workload import LinearWorkload
from tvm_ahcq.target import HostTarget

FILE = "records.jsonl"


@dataclass(frozen=True)
class Record:
    """A measured candidate.

    Attributes
    ----------
    target : str
        Name of the target.
    workload : LinearWorkload
        Sizes of the operator.
    rows : int
        Rows of the call.
    schedule : LinearSchedule
        Schedule of the kernel.
    seconds : float or None
        Time of a call; None if building or running failed.
    error : str
        Reason of the failure.
    """

    target: str
    workload: LinearWorkload
    rows: int
    schedule: LinearSchedule
    seconds: float | None
    error: str = ""


def append(folder: Path, records: Iterable[Any]) -> None:
    """Append records, dataclasses of any kind, to those of a folder."""
    path = folder / FILE
    text = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    with open(path, "a+b") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            text = "\n" + text  # a kill has left half a line
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(folder: str | os.PathLike[str]) -> list[Record]:
    """Return the records of a folder; a line that was cut off by a kill is left out.

    Raises
    ------
    TuningError
        The folder has no records.
    """
    return read_lines(read_text(folder))


def read_text(folder: str | os.PathLike[str]) -> list[str]:
    """Return the lines of a folder's records of all kinds.

    Raises
    ------
    TuningError
        The folder has no records.
    """
    path = Path(folder) / FILE
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TuningError(f"{path}: {error.strerror or error}; write it with `tvm-ahcq tune --out {folder}`") from error


def read_lines(lines: Iterable[str]) -> list[Record]:
    """Return the records in `lines`; lines that are not records are left out."""
    records = []
    for line in lines:
        try:
            records.append(_record(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            continue
    return records


def _record(stored: Mapping[str, Any]) -> Record:
    workload, schedule = LinearWorkload(**stored["workload"]), LinearSchedule(**stored["schedule"])
    seconds = None if stored["seconds"] is None else float(stored["seconds"])
    return Record(str(stored["target"]), workload, int(stored["rows"]), schedule, seconds, str(stored["error"]))


@dataclass(frozen=True)
class Tuning:
    """Best known schedules, by target and workload."""

    best: Mapping[tuple[str, LinearWorkload], LinearSchedule] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Tuning:
        """Return the fastest schedule of each target and workload, by the time of a row."""
        fastest: dict[tuple[str, LinearWorkload], tuple[float, LinearSchedule]] = {}
        for record in records:
            if record.seconds is not None:
                key, time = (record.target, record.workload), record.seconds / record.rows
                if key not in fastest or time < fastest[key][0]:
                    fastest[key] = time, record.schedule
        return cls({key: schedule for key, (_, schedule) in fastest.items()})

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Tuning:
        """Return the best schedules in a folder's records."""
        return cls.of(read(folder))

    def updated(self, newer: Tuning) -> Tuning:
        """Return these schedules, replaced by those of `newer` where it has any."""
        return Tuning({**self.best, **newer.best})

    def linear(self, target: HostTarget, workload: LinearWorkload) -> LinearSchedule:
        """Return the schedule of a grouped-scale GEMM, the default where none is known."""
        return self.best.get((target.name, workload), DEFAULT)


DEFAULTS_FILE = Path(__file__).with_name("defaults.jsonl")
"""Records of the workloads of :mod:`tvm_ahcq.tune.host.shapes` with a schedule clearly faster than the default."""

DEFAULTS = Tuning.of(read_lines(DEFAULTS_FILE.read_text(encoding="utf-8").splitlines()))
"""Schedules that are used without tuning."""
