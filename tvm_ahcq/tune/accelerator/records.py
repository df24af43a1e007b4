"""Records of measured tiles: lines of the same file as those of processors, by configuration."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.lower.tiles import AttentionTile, LinearTile, Tile
from tvm_ahcq.errors import TuningError
from tvm_ahcq.runtime.operator_shapes import Shape, shape_from_dict
from tvm_ahcq.tune.records import FILE, read_text


@dataclass(frozen=True)
class TileRecord:
    """A measured candidate.

    Attributes
    ----------
    config, config_hash : str, int
        Configuration of the accelerator; records of another hash are not used.
    shape : Shape
        Operator.
    tile : Tile
        Its tile.
    cycles : int or None
        Simulated, of the whole operator; None where that failed.
    error : str
        Reason of the failure.
    """

    config: str
    config_hash: int
    shape: Shape
    tile: Tile
    cycles: int | None
    error: str = ""


def read_tiles(folder: str | os.PathLike[str]) -> list[TileRecord]:
    """Return the records of a folder, without a line that a kill cut off, and without those of processors.

    Raises
    ------
    TuningError
        The folder has no records, or a record of a tile lacks a field or has one of a wrong type.
    """
    records = []
    for number, line in enumerate(read_text(folder), 1):
        try:
            stored = json.loads(line)
        except ValueError:
            continue
        if not isinstance(stored, dict) or "tile" not in stored:
            continue
        try:
            records.append(_record(stored))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise TuningError(
                f"{Path(folder) / FILE}, line {number}, is no record of a tile ({error!r}); delete it, "
                "or tune again in an empty folder"
            ) from error
    return records


def _record(stored: Mapping[str, Any]) -> TileRecord:
    tile = (LinearTile if "rows" in stored["tile"] else AttentionTile)(**stored["tile"])
    if any(
        isinstance(value, bool) != (name == "columns_first") or not isinstance(value, int)
        for name, value in stored["tile"].items()
    ):
        raise TypeError(f"tile {stored['tile']}")
    cycles = None if stored["cycles"] is None else int(stored["cycles"])
    return TileRecord(
        str(stored["config"]),
        int(stored["config_hash"]),
        shape_from_dict(stored["shape"]),
        tile,
        cycles,
        str(stored["error"]),
    )


def best_tiles(folder: str | os.PathLike[str], config: Config) -> dict[Shape, Tile]:
    """Return for each shape the tile of the fewest cycles on this configuration; the earlier one of equals.

    Raises
    ------
    TuningError
        As :func:`read_tiles`.
    """
    return fewest_cycles([record for record in read_tiles(folder) if record.config_hash == config.hash])


def fewest_cycles(records: list[TileRecord]) -> dict[Shape, Tile]:
    """Return for each shape the tile of the fewest cycles; the earlier one of equals."""
    best: dict[Shape, TileRecord] = {}
    for record in records:
        before = best.get(record.shape)
        if record.cycles is not None and (before is None or before.cycles is None or record.cycles < before.cycles):
            best[record.shape] = record
    return {shape: record.tile for shape, record in best.items()}
