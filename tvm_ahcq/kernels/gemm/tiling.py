"""Schedules of a grouped-scale GEMM: the choices that tuning measures. None changes the result."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tvm_ahcq.target import HostTarget

REGISTERS = 32
"""Vector registers of AVX-512."""


@dataclass(frozen=True)
class LinearSchedule:
    """Blocking of a grouped-scale GEMM.

    Attributes
    ----------
    vectors : int
        AVX512-VNNI: vectors of outputs in a register tile, the width of a panel of weights; 0 to choose by shape.
    tile_rows : int
        Rows of a register tile; 0 for the number that fits the registers best. AMX has one size of tile.
    block_rows : int
        Rows that share one pass over a panel of weights; a block of rows and a panel are one parallel task.
    rows_first : bool
        True if consecutive tasks take blocks of rows against the same panel, False if panels against the same rows.
    """

    vectors: int = 0
    tile_rows: int = 0
    block_rows: int = 96
    rows_first: bool = False


DEFAULT = LinearSchedule()


def linear_space(target: HostTarget) -> list[LinearSchedule]:
    """Return every schedule worth measuring on `target`, the default first; the default alone if there is no choice."""
    blocks, orders = (32, 48, 96, 192, 384), (False, True)
    if target.isa == "avx512vnni":
        tiles = [(v, r) for v in range(1, 7) for r in (3, 4, 5, 6, 8, 9, 12, 14) if _fits(v, r)]
    elif target.isa in ("avx2", "avxvnni", "neon-dot", "neon"):
        tiles = [(0, r) for r in (1, 2, 3, 4, 5, 6)]
    else:
        tiles = [(0, 0)] if target.isa == "amx" else []
    schedules = [LinearSchedule(v, r, b, o) for (v, r), b, o in itertools.product(tiles, blocks, orders)]
    return [DEFAULT, *(schedule for schedule in schedules if schedule != DEFAULT)]


def _fits(vectors: int, rows: int) -> bool:
    """True if sums, weights and one broadcast fit the registers, and fill at least half of them."""
    return REGISTERS // 2 <= (rows + 1) * vectors + 1 <= REGISTERS
