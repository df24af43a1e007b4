"""Output of the commands: results on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

LABEL_WIDTH = 10
"""Columns of the label in front of a result."""

_WIDE = 1000
"""Columns that tables may take: a figure that wraps to the next line can still be read, one that is cut cannot."""


def result(label: str, text: str) -> None:
    """Print one line of results: a label and what there is to say."""
    print(f"  {label:<{LABEL_WIDTH}} {text}", flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> None:
    """Print a table of results: the first `texts` columns to the left, the others to the right."""
    shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        shown.add_column(name, justify="left" if index < texts else "right", no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    Console(file=sys.stdout, width=_WIDE, highlight=False, markup=False).print(shown)


@contextmanager
def progress_bar(stage: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar on standard error while a stage runs; nothing where that is not a terminal.

    Parameters
    ----------
    stage : str
        Name to start with.

    Yields
    ------
    callable
        To be called with the current stage, the steps done, and all steps of it.
    """
    console = Console(stderr=True)
    columns = (
        TextColumn("  {task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(stage, total=None)

        def update(name: str, done: int, total: int) -> None:
            progress.update(task, description=name, completed=done, total=total)

        yield update


def size(count: float) -> str:
    """Bytes in decimal units, as ``2.3 MB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def duration(seconds: float) -> str:
    """A time in the unit that suits it, as ``9.8 ms`` or ``21.0 s``."""
    return f"{seconds * 1e3:.1f} ms" if seconds < 1 else f"{seconds:.1f} s"


def ratio(value: float, more: str, less: str) -> str:
    """A ratio in words, as ``4.2x faster`` or ``1.3x slower``."""
    return f"{value:.1f}x {more}" if value >= 1 else f"{1 / value:.1f}x {less}"


def complain(message: str) -> None:
    """Print one line to standard error."""
    print("tvm-ahcq: " + " ".join(message.split()), file=sys.stderr)
