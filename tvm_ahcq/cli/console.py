"""What the commands print: results on standard output, progress on standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

LABEL_WIDTH = 10
"""Columns of the label in front of a result."""


def result(label: str, text: str) -> None:
    """Print one line of results: a label and what there is to say."""
    print(f"  {label:<{LABEL_WIDTH}} {text}", flush=True)


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
    times = TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn()
    columns = (TextColumn("  {task.description:<10}"), BarColumn(), MofNCompleteColumn(), *times)
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
