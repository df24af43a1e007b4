"""The run: every peer in a process of its own, all of them taking turns, with a loop of the peak in between."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

import tvm_ahcq
from tvm_ahcq.errors import BenchmarkError
from tvm_ahcq.kernels.peak import peak_loops
from tvm_ahcq.models.description import ENCODE, ModelSpec
from tvm_ahcq.models.registry import find_family, timing_of
from tvm_ahcq.target import resolve_target

from .peers import OURS, Peer
from .task import EMBEDDING, Task, stages_of

REFERENCE = "torch float32"
_TURN, _MOST_CALLS = 0.2, 10
"""Seconds that a turn should take where the stage is faster than that, and most calls in it."""

Note = Callable[[str], None]


class PeerFailed(Exception):
    """A peer's process said that it could not, or ended."""


class Worker:
    """The process of a peer.

    Parameters
    ----------
    peer : Peer
        Whose.
    task : Task
        Written to its folder.
    mode : str
        ``"prepare"`` or ``"serve"``.
    """

    def __init__(self, peer: Peer, task: Task, mode: str) -> None:
        count, root = str(task.threads), str(Path(tvm_ahcq.__file__).parents[1])
        search = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        counts = dict.fromkeys(("OMP_NUM_THREADS", "TVM_NUM_THREADS"), count)
        environment = {**os.environ, **counts, "PYTHONPATH": search, "PYTHONWARNINGS": "ignore"}
        command = [sys.executable, "-m", "tvm_ahcq.bench.worker", mode, peer.name, str(task.folder)]
        self.log = task.peer_folder(peer.name).with_suffix(".log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def answer(self) -> dict[str, Any]:
        """Return the next answer of the process.

        Raises
        ------
        PeerFailed
            It failed.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise PeerFailed(f"its process ended with status {self.process.wait()}; see {self.log}")
        found = json.loads(line)
        if "error" in found:
            raise PeerFailed(found["error"])
        return found

    def run(self, stage: str, calls: int) -> dict[str, Any]:
        """Time a stage; raises :class:`PeerFailed`."""
        assert self.process.stdin is not None
        try:
            print(json.dumps({"stage": stage, "calls": calls}), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # its status is read below
        return self.answer()


@dataclass
class PeerResult:
    """Measurements of a peer.

    Attributes
    ----------
    name : str
        Of the peer.
    files : int
        Bytes of the files that hold its weights.
    seconds : dict of str to list of list of float
        For each stage, for each round, seconds of each call.
    load : float
        Seconds to open it, files read and graphs optimised.
    memory : int
        Most bytes that its process has held, opening included.
    cosine : float or None
        Of its embedding and that of torch in float32; None where that did not run.
    """

    name: str
    files: int
    seconds: dict[str, list[list[float]]] = field(default_factory=lambda: defaultdict(list))
    load: float = 0.0
    memory: int = 0
    cosine: float | None = None

    def least(self, stage: str) -> float:
        """Least seconds of all calls."""
        return min(min(calls) for calls in self.seconds[stage])

    def median(self, stage: str) -> float:
        """Median over the rounds of a round's least seconds."""
        return median(min(calls) for calls in self.seconds[stage])

    def ratio(self, stage: str, other: PeerResult) -> float:
        """Return the time relative to `other`: the median of the ratios within each round."""
        pairs = zip(self.seconds[stage], other.seconds[stage], strict=True)
        return median(min(own) / min(theirs) for own, theirs in pairs)


@dataclass(frozen=True)
class Comparison:
    """A finished run.

    Attributes
    ----------
    task : Task
        What was run.
    results : list of PeerResult
        Ours first.
    skipped : dict of str to str
        Peers that did not run, and why.
    peaks : list of float
        int8 multiply-adds a second of all threads that the peak loop reached, turn by turn; empty without such a loop.
    encoder_macs : int
        Multiply-adds of the float image encoder.
    """

    task: Task
    results: list[PeerResult]
    skipped: dict[str, str]
    peaks: list[float]
    encoder_macs: int


def compare(task: Task, peers: Sequence[Peer], target: str, repeats: int, note: Note = lambda _: None) -> Comparison:
    """Run peers in turn.

    Parameters
    ----------
    task : Task
        Written to its folder by :func:`.task.write_task`.
    peers : sequence of Peer
        Ours first.
    target : str
        Name of the bundle's target, for the peak loop.
    repeats : int
        Rounds; in each, every peer takes a turn at every stage. What comes before them is not counted.
    note : callable
        Told what is being done.

    Raises
    ------
    BenchmarkError
        Our own bundle cannot be run.
    """
    skipped = {peer.name: f"not installed: {', '.join(peer.missing())}" for peer in peers if peer.missing()}
    loop = peak_loops(resolve_target(target)).get("int8")
    peaks: list[float] = []
    with ExitStack() as stack:
        running: dict[str, tuple[Worker, PeerResult]] = {}
        for peer in peers:
            if peer.name not in skipped:
                note(f"open {peer.name}")
                try:
                    running[peer.name] = _open(peer, task, stack)
                except PeerFailed as error:
                    skipped[peer.name] = f"failed: {error}"
        if OURS not in running:
            raise BenchmarkError(f"{task.bundle} cannot be run: {skipped[OURS]}")
        stages = stages_of(task.model)
        calls = _calls(running[OURS][0], stages)
        for number in range(repeats):
            note(f"round {number + 1} of {repeats}")
            _round(running, skipped, calls, number)
            if loop is not None:
                peaks.append(task.threads * loop.rate(1))
    results = [result for _, result in running.values()]
    _add_cosines(task, results)
    return Comparison(task, results, skipped, peaks, encoder_macs(task.model))


def _open(peer: Peer, task: Task, stack: ExitStack) -> tuple[Worker, PeerResult]:
    """Prepare a peer, then start it; it has run once when this returns."""
    with Worker(peer, task, "prepare") as preparing:
        files = [Path(path) for path in preparing.answer()["files"]]
    result = PeerResult(peer.name, sum(path.stat().st_size for path in files))
    worker = stack.enter_context(Worker(peer, task, "serve"))
    opened = worker.answer()
    result.load, result.memory = opened["load"], opened["memory"]
    for stage in stages_of(task.model):
        worker.run(stage, 1)
    return worker, result


def _calls(ours: Worker, stages: Sequence[str]) -> dict[str, int]:
    """Calls of each stage in a turn, so that a turn of a fast stage is more than one call."""
    fastest = {stage: min(ours.run(stage, 2)["seconds"]) for stage in stages}
    return {stage: max(1, min(_MOST_CALLS, int(_TURN / seconds))) for stage, seconds in fastest.items()}


def _round(
    running: dict[str, tuple[Worker, PeerResult]], skipped: dict[str, str], calls: dict[str, int], number: int
) -> None:
    """One turn of every peer at every stage; who begins changes. A peer that fails now is left out as a whole."""
    for stage in calls:
        names = list(running)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            worker, result = running[name]
            try:
                found = worker.run(stage, calls[stage])
            except PeerFailed as error:
                if name == OURS:
                    raise BenchmarkError(f"the bundle fails: {error}") from error
                skipped[name] = f"failed: {error}"
                del running[name]
            else:
                result.seconds[stage].append(found["seconds"])
                result.memory = found["memory"]


def _add_cosines(task: Task, results: Sequence[PeerResult]) -> None:
    """Compare the embeddings that the peers left in their folders."""
    found = {each.name: np.load(task.peer_folder(each.name) / EMBEDDING).astype(np.float64) for each in results}
    reference = found.get(REFERENCE)
    if reference is not None:
        for each in results:
            own = found[each.name]
            each.cosine = float((own * reference).sum() / np.linalg.norm(own) / np.linalg.norm(reference))


def encoder_macs(model: ModelSpec) -> int:
    """Return the multiply-adds of a float image encoder, counted by torch on shapes alone."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    timing, name = timing_of(model), find_family(model.family).function_name(ENCODE)
    encoder = timing.torch_modules(model.name, (name,), None)[name]
    inputs = [torch.zeros(array.shape, device="meta") for array in timing.example_inputs(model, name, 1)]
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        encoder(*inputs)
    return counter.get_total_flops() // 2
