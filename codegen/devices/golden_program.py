"""Is a device what it says? One small matrix product, compared with the numpy model in every bit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tvm_ahcq.codegen.hardware.linear import Linear, linear_program
from tvm_ahcq.codegen.hardware.model.machine import Machine, Result
from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.memory_image import MemoryImage, instruction_count
from tvm_ahcq.errors import DeviceError

from .device import Device, relocate

_ROWS, _SEED = 16, 20


@dataclass(frozen=True)
class GoldenProgram:
    """A program and what it must do.

    Attributes
    ----------
    before, after : bytes
        Memory from address 0, the program in it.
    start, length : int
        Byte address of the program; its instructions.
    result : Result
        How the numpy model ends it, with its counters.
    """

    before: bytes
    after: bytes
    start: int
    length: int
    result: Result


@lru_cache(maxsize=8)
def golden_program(config: Config) -> GoldenProgram:
    """A linear layer of two groups, ``(16, 2 Dim) x (2 Dim, 2 Dim)``: loads, array, scales, encoder and stores."""
    rng, size = np.random.default_rng(_SEED), 2 * config.dim
    layer = Linear(
        codes=rng.integers(0, 16, (_ROWS, size)).astype(np.uint8),
        weight=rng.integers(0, 16, (size, size)).astype(np.uint8),
        zero=rng.integers(0, 16, size).astype(np.uint8),
        group_sizes=(config.dim, config.dim),
        tables=np.arange(16) - rng.integers(0, 16, (2, 1)),
        multiplier=rng.uniform(1e-3, 1e-2, (2, size)),
        bias=rng.normal(size=size),
        fraction_bits=12,
        thresholds=np.sort(rng.integers(-(2**15), 2**15, 31)).astype(np.int32),
        out_codes=rng.integers(0, 16, 32),
    )
    image = MemoryImage()
    program, _ = linear_program(config, image, layer)
    start = image.place(program)
    memory = image.finish()
    before = bytes(memory)
    result = Machine(config, memory).run(start, instruction_count(program))
    return GoldenProgram(before, bytes(memory), start, instruction_count(program), result)


def self_test(device: Device, config: Config, seconds: float = 60.0) -> None:
    """Runs the known program on a device.

    Parameters
    ----------
    device : Device
        Any; what it has in allocated memory is kept.
    config : Config
        That the device must have.
    seconds : float
        Longest time of the program.

    Raises
    ------
    DeviceError
        The device has another configuration, fails, takes longer, or computes something else.
    """
    device.require_config(config)
    known = golden_program(config)
    at = device.allocate(len(known.before))
    try:
        device.copy_in(at, known.before)
        size = known.length * 32
        device.copy_in(at + known.start, relocate(known.before[known.start : known.start + size], at))
        found = device.run(at + known.start, known.length, seconds)
        # results lie in front of the program, whose addresses are those of this device
        memory = device.copy_out(at, known.start)
    except DeviceError:
        with suppress(DeviceError):  # the reason is in the first one
            device.soft_reset()
        raise
    finally:
        device.release(at)
    if found.error != "none":
        device.soft_reset()
        raise DeviceError(f"the known program ended with {found.error} at instruction {found.error_index}.")
    wrong = sum(a != b for a, b in zip(memory, known.after, strict=False))
    if wrong:
        raise DeviceError(f"{wrong} of {known.start} bytes differ from the numpy model's.")
    if found.counters != known.result.counters:
        raise DeviceError(f"it counts {found.counters}; the numpy model {known.result.counters}.")
