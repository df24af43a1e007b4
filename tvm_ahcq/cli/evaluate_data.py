"""What ``tvm-ahcq eval`` measures on: a data set and the function that measures a model on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tvm_ahcq.evaluate.metrics.variants import Variant
    from tvm_ahcq.progress import Progress


class Accuracy(Protocol):
    """Figures of one model."""

    def figures(self) -> Mapping[str, float | None]:
        """Return the columns of the table, by title."""

    def summary(self) -> str:
        """Return what was counted, for people."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""


@dataclass(frozen=True)
class EvaluationData:
    """Data to evaluate on: its description for people and in JSON, and the function that measures a model."""

    text: str
    scored: str
    content: dict[str, Any]
    measure: Callable[[Variant, Progress], Accuracy]
