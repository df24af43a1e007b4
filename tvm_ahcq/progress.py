"""The type of callables that are told of progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""Called with (step, units finished, units in all)."""


def silent(_what: str, _done: int, _total: int) -> None:
    """Ignore progress."""
