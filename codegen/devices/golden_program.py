"""The self-test of a device: one small program, whose results must equal those of the numpy model in every bit."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tvm_ahcq.codegen.hardware.model.machine import Machine, Result
from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_mlp
from tvm_ahcq.codegen.lower.standalone import packed_inputs, standalone
from tvm_ahcq.errors import DeviceError
from tvm_ahcq.runtime.weights import QLinearWeight

from .device import Device, relocate

_ROWS, _SEED = 16, 20


@dataclass(frozen=True)
class GoldenProgram:
    """A program and the memory that it must leave.

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
    """Return an MLP of 16 rows and 2 Dim channels: loads, array, scales with and without encoder, and stores."""
    rng, size = np.random.default_rng(_SEED), 2 * config.dim
    layers = [_random_layer(rng, size, groups) for groups in ((config.dim, config.dim), (size,))]
    thresholds = np.sort(rng.normal(size=31)).astype(np.float32)
    operands = rng.permutation(np.repeat(rng.choice(256, 16, replace=False), 2)).astype(np.uint8)
    operator = lower_mlp(config, _ROWS, layers[0], thresholds, operands, layers[1])
    program = standalone(operator.memory, operator.program)
    memory = program.image(packed_inputs(operator, rng.integers(0, 16, (_ROWS, size)).astype(np.uint8)))
    before = bytes(memory)
    result = Machine(config, memory).run(program.start, program.length)
    return GoldenProgram(before, bytes(memory), program.start, program.length, result)


def _random_layer(rng: np.random.Generator, size: int, groups: tuple[int, ...]) -> LinearLayer:
    """A square layer whose results are near 1."""
    weight = QLinearWeight(
        codes=rng.integers(0, 16, (size, size)).astype(np.uint8),
        bits=4,
        scale=rng.uniform(0.5, 1.5, size).astype(np.float32) / (25 * np.sqrt(size)).astype(np.float32),
        zero_point=rng.integers(4, 12, size).astype(np.uint8),
        index=np.arange(size, dtype=np.int32),
        group_sizes=groups,
        group_scale=rng.uniform(0.5, 1.5, len(groups)).astype(np.float32),
        group_zero_point=rng.integers(4, 12, len(groups)).astype(np.int32),
    )
    return LinearLayer(weight, rng.normal(size=size).astype(np.float32))


def self_test(device: Device, config: Config, seconds: float = 60.0) -> None:
    """Run the golden program on a device.

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
    golden = golden_program(config)
    at = device.allocate(len(golden.before))
    try:
        device.copy_in(at, golden.before)
        size = golden.length * INSTRUCTION_BYTES
        device.copy_in(at + golden.start, relocate(golden.before[golden.start : golden.start + size], at))
        result = device.run(at + golden.start, golden.length, seconds)
        # results lie in front of the program, whose addresses are those of this device
        memory = device.copy_out(at, golden.start)
    except DeviceError:
        with suppress(DeviceError):  # the reason is in the first one
            device.soft_reset()
        raise
    finally:
        device.release(at)
    if result.error != "none":
        device.soft_reset()
        raise DeviceError(f"the golden program ended with {result.error} at instruction {result.error_index}.")
    wrong = sum(a != b for a, b in zip(memory, golden.after, strict=False))
    if wrong:
        raise DeviceError(f"{wrong} of {golden.start} bytes differ from the numpy model's.")
    if result.counters != golden.result.counters:
        raise DeviceError(f"it counts {result.counters}; the numpy model {golden.result.counters}.")
