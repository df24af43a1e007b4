"""Matrix products of the image encoders of SAM and SAM 2, for tuning without a bundle of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm_ahcq.tune.records import LinearWorkload

_GROUPS, _BITS = 4, 4
_GRID = 64
"""Tokens along a side of the image embedding, 1024 / 16."""


@dataclass(frozen=True)
class _Plain:
    """A ViT: one width throughout."""

    width: int

    def products(self) -> Iterator[tuple[LinearWorkload, int]]:
        """Workloads, and tokens."""
        tokens = _GRID**2
        for layer in _block(self.width, self.width):
            yield layer, tokens
        yield LinearWorkload(256, self.width, 1, _BITS), tokens
        yield LinearWorkload(256, 9 * 256, 1, _BITS), tokens


@dataclass(frozen=True)
class _Hiera:
    """Four stages, each of twice the width and a quarter of the tokens of the one before; all go to a pyramid."""

    width: int

    def products(self) -> Iterator[tuple[LinearWorkload, int]]:
        """Workloads, and tokens."""
        for stage in range(4):
            width, tokens = self.width << stage, (4 * _GRID >> stage) ** 2
            for layer in _block(width, width):
                yield layer, tokens
            if stage:  # the first block of a stage widens
                yield _grouped(3 * width, width // 2), 4 * tokens
                yield _grouped(width, width // 2), 4 * tokens
            yield LinearWorkload(256, width, 1, _BITS), tokens


_MODELS: dict[str, _Plain | _Hiera] = {
    "vit_b": _Plain(768),
    "vit_l": _Plain(1024),
    "vit_h": _Plain(1280),
    "hiera_t": _Hiera(96),
    "hiera_s": _Hiera(96),
    "hiera_b+": _Hiera(112),
    "hiera_l": _Hiera(144),
}

ENCODERS = tuple(_MODELS)
"""Names of the encoders."""


def encoder_workloads(name: str) -> dict[LinearWorkload, int]:
    """Grouped GEMMs of an encoder at 1024 x 1024 with 4-bit weights, and the rows that each is tuned for.

    Parameters
    ----------
    name : str
        One of :data:`ENCODERS`.
    """
    return dict(_MODELS[name].products())


def _grouped(outputs: int, inputs: int) -> LinearWorkload:
    """A layer on channel-grouped activations, each group of which is filled up to a multiple of 4 channels."""
    return LinearWorkload(outputs, inputs + 3 * _GROUPS, _GROUPS, _BITS)


def _block(width: int, inputs: int) -> list[LinearWorkload]:
    """Queries, keys and values; projection; the two layers of the MLP, the second on codes of one scale."""
    return [
        _grouped(3 * width, inputs),
        _grouped(width, width),
        _grouped(4 * width, width),
        LinearWorkload(width, 4 * width, 1, _BITS),
    ]
