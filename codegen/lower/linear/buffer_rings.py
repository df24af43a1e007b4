"""Buffers that are used in turn."""

from __future__ import annotations


class RingBuffers:
    """Buffers that are used in turn, by name."""

    def __init__(self) -> None:
        self._next: dict[str, int] = {}

    def slot(self, name: str, count: int) -> int:
        """Return the number of the next of `count` buffers."""
        current = self._next.get(name, -1)
        self._next[name] = (current + 1) % count
        return self._next[name]


class ChunkRing:
    """Places for chunks of different sizes, one behind the other.

    Parameters
    ----------
    size : int
        Room; for chunks that stand `ahead` in front of what uses them, at least ``(ahead + 2) * largest``.
    largest, ahead : int
        Size of the largest chunk, and how many are loaded before one is used.
    """

    MOST = 10
    """Chunks until it begins anew: the use of each gives the loads a token, and a counter holds 15."""

    def __init__(self, size: int, largest: int, ahead: int) -> None:
        self._size, self._untouched = size, (ahead + 1) * largest
        self._at = self._count = 0

    def place(self, size: int) -> int:
        """Return the place of the next chunk; it never overlaps those that may not have been used yet."""
        many = self._count >= self.MOST and self._at >= self._untouched
        if many or self._at + size > self._size:
            self._at = self._count = 0
        at, self._at, self._count = self._at, self._at + size, self._count + 1
        return at
