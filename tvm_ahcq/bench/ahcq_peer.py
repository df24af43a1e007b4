"""Our own bundle, as a runtime among the others."""

from __future__ import annotations

from pathlib import Path

from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.session import Session

from .task import Task


def prepare(task: Task, _precision: str) -> list[Path]:
    """The bundle is all there is."""
    return [task.bundle]


def open_session(task: Task, _precision: str) -> Session:
    """Load the bundle."""
    return Session(read_bundle(task.bundle, target=task.target), task.threads)
