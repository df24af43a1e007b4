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

    def stretch(self, name: str, size: int, room: int) -> int:
        """Where the next `size` words of `room` lie: behind those before them, or at the start if they end too late."""
        at = self._next.get(name, 0)
        at = 0 if at + size > room else at
        self._next[name] = at + size
        return at
