"""What was measured: one JSON object a line, so that a kill costs at most the line being written."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TuningError
from ..target import HostTarget
from ..topi.linear_schedule import DEFAULT, LinearSchedule

FILE = "records.jsonl"


@dataclass(frozen=True, order=True)
class LinearWorkload:
    """What a kernel of a grouped-scale GEMM depends on; rows are not known when it is compiled."""

    outputs: int
    channels: int
    groups: int
    weight_bits: int

    def __str__(self) -> str:
        return f"{self.outputs} x {self.channels}, {self.groups} groups, {self.weight_bits} bits"


@dataclass(frozen=True)
class Record:
    """A measured candidate.

    Attributes
    ----------
    target : str
        Name of the target.
    workload : LinearWorkload
        What was computed.
    rows : int
        Rows that it was computed for.
    schedule : LinearSchedule
        How.
    seconds : float or None
        Time of a call; None where that failed.
    error : str
        Why it failed.
    """

    target: str
    workload: LinearWorkload
    rows: int
    schedule: LinearSchedule
    seconds: float | None
    error: str = ""


def append(folder: Path, records: Iterable[Record]) -> None:
    """Add records to those of a folder."""
    path = folder / FILE
    text = "".join(json.dumps(asdict(record)) + "\n" for record in records)
    with open(path, "a+b") as file:
        if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
            text = "\n" + text  # a kill has left half a line
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def read(folder: str | os.PathLike[str]) -> list[Record]:
    """Records of a folder; a line that was cut off by a kill is left out.

    Raises
    ------
    TuningError
        The folder has no records.
    """
    path = Path(folder) / FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise TuningError(f"{path}: {error.strerror or error}; write it with `tvm-ahcq tune --out {folder}`") from error
    found = []
    for line in lines:
        try:
            found.append(_record(json.loads(line)))
        except (ValueError, TypeError, KeyError):
            continue
    return found


def _record(stored: Mapping[str, Any]) -> Record:
    workload, schedule = LinearWorkload(**stored["workload"]), LinearSchedule(**stored["schedule"])
    seconds = None if stored["seconds"] is None else float(stored["seconds"])
    return Record(str(stored["target"]), workload, int(stored["rows"]), schedule, seconds, str(stored["error"]))


@dataclass(frozen=True)
class Tuning:
    """The best known schedules."""

    best: Mapping[tuple[str, LinearWorkload], LinearSchedule] = field(default_factory=dict)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Tuning:
        """The fastest schedule of each target and workload."""
        fastest: dict[tuple[str, LinearWorkload], Record] = {}
        for record in records:
            key = record.target, record.workload
            if record.seconds is not None and (key not in fastest or record.seconds < (fastest[key].seconds or 0)):
                fastest[key] = record
        return cls({key: record.schedule for key, record in fastest.items()})

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Tuning:
        """That of a folder's records."""
        return cls.of(read(folder))

    def linear(self, target: HostTarget, workload: LinearWorkload) -> LinearSchedule:
        """The schedule of a grouped-scale GEMM, the default where none is known."""
        return self.best.get((target.name, workload), DEFAULT)


DEFAULTS = Tuning()
"""Nothing was tuned."""
