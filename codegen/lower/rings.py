"""Which buffer of each kind is next."""

from __future__ import annotations


class Rings:
    """Buffers that are used in turn, by name."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def slot(self, name: str, count: int) -> int:
        """The next of `count` buffers."""
        current = self._next.get(name, -1)
        self._next[name] = (current + 1) % count
        return self._next[name]
