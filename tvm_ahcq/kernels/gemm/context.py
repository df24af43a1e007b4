"""Buffers and sizes that the inline functions of a grouped-scale GEMM share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm.ir import Expr
from tvm.script import tirx as T
from tvm.tirx import Buffer

from .epilogue import Epilogue
from .tiling import LinearSchedule
from .workload import LinearWorkload


@dataclass(frozen=True)
class GemmContext:
    """Sizes and buffers of a grouped-scale GEMM while its kernel is built.

    Attributes
    ----------
    rows : int or Expr
        Rows of the codes and of the result.
    workload : LinearWorkload
        The other sizes.
    epilogue : Epilogue
        Stores the outputs.
    a, w, bounds, multiplier, correction, bias : Buffer
        Arguments of :func:`.dispatch.grouped_linear`.
    out : Buffer or tuple
        Buffers of the epilogue.
    """

    rows: int | Expr
    workload: LinearWorkload
    epilogue: Epilogue
    a: Buffer
    w: Buffer
    bounds: Buffer
    multiplier: Buffer
    correction: Buffer
    bias: Buffer
    out: Any

    @property
    def outputs(self) -> int:
        """Columns of the result."""
        return self.workload.outputs

    @property
    def blocks(self) -> int:
        """Blocks of 16 outputs."""
        return self.workload.blocks

    def block(self, block: Expr) -> Expr:
        """A block of 16 outputs; past the end, the last one again."""
        return T.min(block, self.blocks - 1)

    def row(self, first_row: Expr, r: Expr) -> Expr:
        """Row `r` of a tile that begins at `first_row`; past the end, the last row again."""
        return T.min(first_row + r, self.rows - 1)


@dataclass(frozen=True)
class TaskGrid:
    """Parallel tasks of a GEMM: blocks of rows by panels of columns.

    Attributes
    ----------
    rows : int or Expr
        Rows of the result.
    panels : int
        Panels of columns.
    schedule : LinearSchedule
        Rows of a block, and the order of the tasks.
    """

    rows: int | Expr
    panels: int
    schedule: LinearSchedule

    @property
    def block_rows(self) -> int:
        """Rows of a task."""
        return self.schedule.block_rows

    @property
    def row_blocks(self) -> int | Expr:
        """Blocks that the rows are cut into."""
        return (self.rows + self.block_rows - 1) // self.block_rows

    @property
    def count(self) -> int | Expr:
        """All tasks."""
        return self.row_blocks * self.panels

    def start(self, task: Expr) -> Expr:
        """First row of a task."""
        block = task % self.row_blocks if self.schedule.rows_first else task // self.panels
        return block * self.block_rows

    def panel(self, task: Expr) -> Expr:
        """Panel of a task."""
        return task // self.row_blocks if self.schedule.rows_first else task % self.panels
