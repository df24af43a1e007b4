"""Base of the quantizer parameter classes: the registry of kinds, JSON conversion, checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

import numpy as np

from tvm_ahcq.errors import CalibrationError, QuantTableError

from .codebook import Codebook

BITS = (4, 5, 6, 8)
"""Code widths that recipes offer."""

_KINDS: dict[str, type[QuantizerParams]] = {}


@dataclass(frozen=True)
class QuantizerParams:
    """Base of the parameter classes: frozen, comparable, convertible to and from plain JSON values.

    Attributes
    ----------
    bits : int
        Code width.
    """

    kind: ClassVar[str] = ""

    bits: int

    @abstractmethod
    def codebooks(self) -> tuple[Codebook, ...]:
        """Return the codebook of each channel group."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, ``kind`` first; :func:`params_from_dict` inverts it exactly."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {"kind": self.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> QuantizerParams:
        """Return parameters of this class from :meth:`to_dict`'s values.

        Raises
        ------
        QuantTableError
            If a field is missing, unknown, or out of range.
        """
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items() if k != "kind"}
        expected = {f.name for f in fields(cls)}
        if set(given) != expected:
            raise QuantTableError(
                f"{cls.kind} parameters have fields {sorted(given)}; expected exactly {sorted(expected)}."
            )
        try:
            return cls(**given)
        except (TypeError, ValueError, OverflowError) as error:
            raise QuantTableError(f"{cls.kind} parameters cannot be used: {error}") from error


Params = TypeVar("Params", bound=QuantizerParams)


def register(kind: str) -> Callable[[type[Params]], type[Params]]:
    """Return a class decorator that registers a parameter class under `kind`, its name in quantization tables."""

    def add(cls: type[Params]) -> type[Params]:
        cls.kind = kind
        _KINDS[kind] = cls
        return cls

    return add


def quantizer_kinds() -> tuple[str, ...]:
    """Return the registered kinds, sorted."""
    return tuple(sorted(_KINDS))


def params_from_dict(values: Mapping[str, Any]) -> QuantizerParams:
    """Return parameters of the class registered under ``values["kind"]``.

    Raises
    ------
    QuantTableError
        If the kind is unknown or the fields do not fit.
    """
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in _KINDS:
        raise QuantTableError(f"Quantizer kind {kind!r} is unknown; known kinds are {', '.join(quantizer_kinds())}.")
    return _KINDS[kind].from_dict(values)


def to_float32(value: Any) -> float:
    """Return `value` rounded to float32, as the shortest Python float that rounds to the same float32.

    Scales are stored so: JSON shows ``0.1`` instead of ``0.10000000149011612``, and ``np.float32`` of it is exact.
    """
    return float(str(np.float32(value)))


def check_bits(bits: int) -> int:
    """Return `bits` as int; ValueError unless it is a code width between 2 and 8."""
    if isinstance(bits, bool) or int(bits) != bits or not 2 <= bits <= 8:
        raise ValueError(f"bits is {bits!r}; expected a whole number from 2 to 8.")
    return int(bits)


def check_scales(scales: Iterable[float], name: str = "scale") -> None:
    """Raise ValueError unless every scale is positive and finite in float32."""
    for scale in scales:
        if not (np.isfinite(np.float32(scale)) and np.float32(scale) > 0):
            raise ValueError(f"{name} is {scale!r}; expected a positive finite float32 number.")


def check_zero_points(zero_points: Iterable[int], bits: int) -> None:
    """Raise ValueError unless every zero point is a code."""
    for zero_point in zero_points:
        if int(zero_point) != zero_point or not 0 <= zero_point < 2**bits:
            raise ValueError(f"zero_point is {zero_point!r}; expected a whole number from 0 to {2**bits - 1}.")


def check_samples(samples: np.ndarray, what: str) -> np.ndarray:
    """Return `samples` as float32.

    Raises
    ------
    CalibrationError
        If there are none, or some are not finite.
    """
    samples = np.asarray(samples, np.float32)
    if samples.size == 0:
        raise CalibrationError(f"Calibration of a {what} quantizer was given no samples; give at least one image.")
    if not np.isfinite(samples).all():
        raise CalibrationError(
            f"Calibration of a {what} quantizer was given NaN or infinite samples; check the checkpoint and the images."
        )
    return samples
