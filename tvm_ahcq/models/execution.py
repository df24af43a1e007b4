"""Execution of a model's functions: sessions, drivers that take a sample through them, and self-checks."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np


class Call(NamedTuple):
    """A request of a driver: run a function with these inputs."""

    function: str
    inputs: tuple[Any, ...]


Driver = Generator[Call, Any, None]
"""A calibration sample on its way through the model: yields calls and is sent the outputs of each. An output that is
not used is not asked for; arrays are numpy arrays or torch tensors, whichever executes the calls."""


class SessionLike(Protocol):
    """An executor of a model's functions: compiled, or simulated in torch."""

    @property
    def model(self) -> Any:
        """Figures of the model, of the family's own class."""

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a function by name with its inputs; return its outputs."""


def run_driver(driver: Driver, execute: Callable[..., Any]) -> None:
    """Run all calls of a driver; ``execute(function, *inputs)`` returns the output, or a tuple of several."""
    try:
        call = next(driver)
        while True:
            call = driver.send(execute(call.function, *call.inputs))
    except StopIteration:
        return


@dataclass(frozen=True)
class Check:
    """One comparison with a golden output.

    Attributes
    ----------
    what : str
        What was compared, for people.
    value, limit : float
        The value, and the limit it is held against.
    passed : bool
        True if the value is within the limit.
    """

    what: str
    value: float
    limit: float
    passed: bool

    def __str__(self) -> str:
        return f"{self.what} {self.value:.4g} ({'' if self.passed else 'NOT '}within {self.limit:g})"


@dataclass(frozen=True)
class GoldenCheck:
    """Self-check of a bundle.

    Attributes
    ----------
    make : callable
        ``make(session) -> arrays``: inputs, and what a reference session makes of them, by name.
    compare : callable
        ``compare(session, arrays) -> checks``: the same on another session, compared.
    """

    make: Callable[[SessionLike], dict[str, np.ndarray]]
    compare: Callable[[SessionLike, Mapping[str, np.ndarray]], tuple[Check, ...]]
