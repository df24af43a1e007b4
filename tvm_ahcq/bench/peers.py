"""The runtimes that are compared: what each needs installed, what it makes of the float weights, how it runs them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm_ahcq.errors import BenchmarkError
from tvm_ahcq.models.execution import SessionLike

from .task import Task

OURS = "tvm-ahcq"


@dataclass(frozen=True)
class Peer:
    """A runtime.

    Attributes
    ----------
    name : str
        As in the table.
    packages : tuple of str
        Packages that must be importable.
    module : str
        Module of :mod:`tvm_ahcq.bench` with the functions ``prepare(task, precision)``, which returns the files that
        hold the weights, and ``open_session(task, precision)``, which returns a session.
    precision : str
        Which of the module's peers it is.
    """

    name: str
    packages: tuple[str, ...]
    module: str
    precision: str

    def missing(self) -> list[str]:
        """Packages that are not installed."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def prepare(self, task: Task) -> list[Path]:
        """Make what :meth:`open` reads, unless the task's folder has it; the files that hold the weights."""
        return list(self._module().prepare(task, self.precision))

    def open(self, task: Task) -> SessionLike:
        """A session that is ready to run; needs :meth:`prepare` first, in any process."""
        return self._module().open_session(task, self.precision)

    def _module(self):
        return importlib.import_module(f".{self.module}", __package__)


_EXPORT = ("onnx", "onnxscript")
PEERS = (
    Peer(OURS, (), "ahcq_peer", "bundle"),
    Peer("torch float32", (), "torch_peer", "float32"),
    Peer("torch bfloat16", (), "torch_peer", "bfloat16"),
    Peer("ONNX Runtime float32", (*_EXPORT, "onnxruntime"), "onnx_peer", "float32"),
    Peer("ONNX Runtime int8 dynamic", (*_EXPORT, "onnxruntime"), "onnx_peer", "int8"),
    Peer("OpenVINO float32", (*_EXPORT, "openvino"), "openvino_peer", "f32"),
    Peer("OpenVINO bfloat16", (*_EXPORT, "openvino"), "openvino_peer", "bf16"),
    Peer("OpenVINO int8 NNCF", (*_EXPORT, "openvino", "nncf"), "openvino_peer", "int8"),
)
"""Ours first; the others are compared with it."""


def choose(names: Sequence[str] | None) -> tuple[Peer, ...]:
    """Ours and the peers called so (case does not matter; a part of a name will do), all of them for None.

    Raises
    ------
    BenchmarkError
        A name fits no peer.
    """
    if names is None:
        return PEERS
    known = ", ".join(peer.name for peer in PEERS[1:])
    for name in names:
        if not any(name.lower() in peer.name.lower() for peer in PEERS[1:]):
            raise BenchmarkError(f"no peer is called {name!r}; expected parts of: {known}")
    wanted = [peer for peer in PEERS[1:] if any(name.lower() in peer.name.lower() for name in names)]
    return (PEERS[0], *wanted)
