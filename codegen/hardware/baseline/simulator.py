"""Tiles on the simulated floating-point core: the streams that it takes, and what it gives."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tvm_ahcq.codegen.hardware.simulator import counting_program
from tvm_ahcq.errors import DeviceError

from .model import Core, Words
from .sources import HERE, TOP, rtl_sources

HARNESS = HERE / "fp_gemm.cc"
Tile = tuple[Words, Words]
"""Operands ``(rows, steps)`` and weights ``(steps, lanes)``."""


def counting_core(core: Core) -> Path:
    """The program of a core that counts toggles, built if it is not in the cache."""
    parameters = [f"-G{name}={value}" for name, value in core.parameters().items()]
    return counting_program(core.name, TOP, rtl_sources(), HARNESS, parameters)


def chunks(core: Core, tiles: list[Tile]) -> NDArray[np.uint32]:
    """Both streams in the order in which their words are needed: 1 for weights, and the chunk's two halves."""
    shift = 0 if core.format == "fp32" else 16
    streams, needed = [], []
    for side in (0, 1):
        words = [weights[k] if side else operands[:, k] for operands, weights in tiles for k in range(len(weights))]
        needed.append(np.repeat(np.arange(len(words)), [len(part) for part in words]))
        packed = (np.concatenate(words) >> np.uint32(shift)).astype(np.uint32 if shift == 0 else np.uint16)
        fill = -len(packed) % (8 // core.word_bytes)
        streams.append(np.pad(packed, (0, fill)).view(np.uint32).reshape(-1, 2))
        needed[side] = needed[side][:: 8 // core.word_bytes]
    rows = np.concatenate([np.insert(stream, 0, side, axis=1) for side, stream in enumerate(streams)])
    order = np.lexsort((1 - rows[:, 0].astype(int), np.concatenate(needed)))
    return rows[order].astype(np.uint32)


def simulate(
    program: Path, core: Core, tiles: list[Tile], idle: int = 0, toggles: Path | None = None
) -> tuple[int, Words]:
    """Cycles and results of tiles.

    Parameters
    ----------
    program : Path
        Around the core: ``fp_gemm.cc``.
    core : Core
        Sizes.
    tiles : list of tuple of ndarray
        One after the other.
    idle : int
        Percent of the cycles in which memory gives nothing.
    toggles : Path, optional
        File for the toggles, of a program that counts them.

    Raises
    ------
    DeviceError
        If results are missing.
    """
    expected = sum(len(operands) * core.lanes for operands, _ in tiles)
    data = chunks(core, tiles)
    sizes = np.array([operands.shape for operands, _ in tiles], np.uint32)
    stream = np.array([len(tiles), len(data), expected, idle], np.uint32).tobytes() + sizes.tobytes() + data.tobytes()
    command = [str(program), *([] if toggles is None else [str(toggles)])]
    done = subprocess.run(command, input=stream, capture_output=True)
    words = np.frombuffer(done.stdout, np.uint32)
    if done.returncode:
        raise DeviceError(f"{core.name}: {max(len(words) - 1, 0)} of {expected} results; {done.stderr.decode()[-500:]}")
    return int(words[0]), words[1:]
