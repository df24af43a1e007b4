"""Finished units of a reconstruction in a folder, from which a run that was killed resumes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tvm_ahcq.atomic_file import atomic_file
from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.table import QuantTable


@dataclass(frozen=True)
class UnitResult:
    """Result of training one unit.

    Attributes
    ----------
    before, after : float
        Relative squared error of the unit's output on held-out images.
    improved : bool
        True if the error fell; otherwise the unit stays as it was.
    """

    before: float
    after: float
    improved: bool


@dataclass
class FinishedUnits:
    """Finished units in a folder: a table after each unit, and the mark of the run that they belong to.

    Attributes
    ----------
    folder : Path or None
        None saves nothing.
    results : dict of str to UnitResult
        By name of the unit.
    """

    folder: Path | None
    results: dict[str, UnitResult]

    @classmethod
    def open(cls, folder: Path | None, mark: str) -> FinishedUnits:
        """Return the finished units in `folder`, or start an empty folder.

        Parameters
        ----------
        folder : Path, optional
            Made if it does not exist.
        mark : str
            Hash of what the run depends on.

        Raises
        ------
        QuantTableError
            If the folder holds another run, or is damaged.
        """
        if folder is None:
            return cls(None, {})
        folder.mkdir(parents=True, exist_ok=True)
        state = folder / "run.json"
        if not state.exists():
            _replace(state, {"run": mark, "finished": {}})
        try:
            content = json.loads(state.read_text())
        except (OSError, ValueError) as error:
            raise QuantTableError(
                f"{state} cannot be read ({error}); choose another folder, or delete this one."
            ) from error
        if not isinstance(content, dict) or content.get("run") != mark:
            raise QuantTableError(
                f"{folder} holds the reconstruction of another model, recipe or set of images; choose another folder, "
                "or delete it."
            )
        return cls(folder, {name: UnitResult(*values) for name, values in content["finished"].items()})

    def table(self, unit: str) -> tuple[QuantTable, UnitResult] | None:
        """Return the table after `unit` and its result; None if it is not finished."""
        if self.folder is None or unit not in self.results:
            return None
        return QuantTable.load(self.folder / f"{unit}.json"), self.results[unit]

    def add(self, unit: str, table: QuantTable, result: UnitResult) -> None:
        """Save the table after `unit`, then record that the unit is finished."""
        if self.folder is None:
            return
        table.save(self.folder / f"{unit}.json")
        self.results[unit] = result
        state = self.folder / "run.json"
        content = json.loads(state.read_text())
        content["finished"] = {name: [r.before, r.after, r.improved] for name, r in self.results.items()}
        _replace(state, content)


def _replace(path: Path, content: dict) -> None:
    """Write JSON, so that `path` is complete at every moment."""
    with atomic_file(path) as file:
        file.write(json.dumps(content).encode())
