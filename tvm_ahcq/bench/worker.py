"""A process that runs one peer: alone with its memory and its threads, it does what its parent asks for line by line.

Requests are JSON objects on standard input, one a line, answers likewise on what was standard output; what libraries
print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.models.registry import timing_of

from .peers import PEERS, Peer
from .task import EMBEDDING, read_task


def peak_memory() -> int:
    """Most memory in bytes that this process has held; unlike ``ru_maxrss``, without that of its parent."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0


def timed(function: Callable[[], Any], calls: int) -> list[float]:
    """Seconds of each of some calls."""
    found = []
    for _ in range(calls):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return found


def serve(peer: Peer, folder: Path, answer: Callable[[dict[str, Any]], None]) -> None:
    """Open a peer, say so, then time stages until the input ends."""
    task, image, click = read_task(folder)
    start = time.perf_counter()
    session = peer.open(task)
    loaded = time.perf_counter() - start
    functions = timing_of(task.model).stages(session, image, click)
    task.peer_folder(peer.name).mkdir(exist_ok=True)
    encoded = functions["encode"]()
    np.save(task.peer_folder(peer.name) / EMBEDDING, encoded[0] if isinstance(encoded, tuple) else encoded)
    answer({"load": loaded, "memory": peak_memory()})
    for line in sys.stdin:
        request = json.loads(line)
        seconds = timed(functions[request["stage"]], request["calls"])
        answer({"seconds": seconds, "memory": peak_memory()})


def main(mode: str, name: str, folder: str) -> None:
    """``prepare``: make what the peer reads, answer with its files; ``serve``: run it."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(message: dict[str, Any]) -> None:
        print(json.dumps(message), file=out, flush=True)

    peer = next(peer for peer in PEERS if peer.name == name)
    try:
        if mode == "prepare":
            answer({"files": [str(path) for path in peer.prepare(read_task(Path(folder))[0])]})
        else:
            serve(peer, Path(folder), answer)
    except Exception as error:  # other runtimes raise what they like; one that fails is reported and left out
        answer({"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]})


if __name__ == "__main__":
    main(*sys.argv[1:])
