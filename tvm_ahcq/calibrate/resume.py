"""Finished blocks of a reconstruction in a folder, from where a run that was killed goes on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.core.table import QuantTable


@dataclass(frozen=True)
class UnitResult:
    """What became of one block: relative squared error of its output on held-out images, before and after."""

    before: float
    after: float
    kept: bool


@dataclass
class FinishedUnits:
    """Finished blocks in a folder: one table a block, and what run they belong to."""

    folder: Path | None
    results: dict[str, UnitResult]

    @classmethod
    def open(cls, folder: Path | None, mark: str) -> FinishedUnits:
        """Take up what lies in `folder`, or begin there; `mark` tells runs apart.

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
        """Table after the block `unit`, if it is finished."""
        if self.folder is None or unit not in self.results:
            return None
        return QuantTable.load(self.folder / f"{unit}.json"), self.results[unit]

    def add(self, unit: str, table: QuantTable, result: UnitResult) -> None:
        """Note that a block is finished; its table is whole before the note is made."""
        if self.folder is None:
            return
        table.save(self.folder / f"{unit}.json")
        self.results[unit] = result
        state = self.folder / "run.json"
        content = json.loads(state.read_text())
        content["finished"] = {name: [r.before, r.after, r.kept] for name, r in self.results.items()}
        _replace(state, content)


def _replace(path: Path, content: dict) -> None:
    """Write JSON; the file is whole at every moment."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(content))
    part.replace(path)
