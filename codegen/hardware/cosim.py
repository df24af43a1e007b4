"""Co-simulation: one random program on the numpy model and on devices, compared in memory, error and counters."""

from __future__ import annotations

from collections.abc import Sequence

from tvm_ahcq.codegen.devices.device import Timing, open_device
from tvm_ahcq.codegen.hardware.model.machine import Machine, Result
from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.encoding import INSTRUCTION_BYTES, decode
from tvm_ahcq.codegen.isa.generated.isa import Load, Store

from .fuzz import RandomProgram, random_program

WATCHDOG = 3000
"""Cycles; more than any instruction of a random program takes, stalls included."""


def timing_of(config: Config, seed: int) -> Timing:
    """Return the memory's behaviour for a seed: latency, width, stalls."""
    return Timing(
        latency=(1, 7, 40, 90)[seed % 4],
        bytes_per_cycle=config.beat_bytes // (1, 1, 2, 4)[seed // 4 % 4],
        stall_permille=(0, 100, 500)[seed % 3],
        seed=seed,
    )


def find_mismatch(
    config: Config, seed: int, fault: str = "none", backends: Sequence[str] = ("fsim", "rtl"), kernels: str = ""
) -> str | None:
    """Return the first difference between the model and devices; None if there is none.

    Memory, error code, its index and the exact counters are compared with the model's; where nothing stalls and nothing
    goes wrong, all counters of the devices with each other: the estimate of the functional simulator is exact.

    Parameters
    ----------
    config : Config
        Accelerator.
    seed : int
        Of the program and of the memory's timing.
    fault : str
        ``"none"`` or a name of ``random_program.FAULTS``.
    backends : sequence of str
        Devices.
    kernels : str
        Of ``fsim``; the best of this processor if empty.
    """
    program = random_program(config, seed, fault)
    memory = bytearray(program.memory)
    expected = Machine(config, memory).run(program.start, program.length)
    if fault == "none" and expected.error != "none":
        return f"seed {seed}: a program without a fault ends with {expected}"
    counted: dict[str, dict[str, int]] = {}
    for backend in backends:
        result, left, counted[backend] = _run(config, seed, program, backend, kernels)
        if result != expected:
            return f"seed {seed}, {fault}: the model ends with {expected}, {backend} with {result}"
        if left != memory:
            first = next(i for i, (a, b) in enumerate(zip(left, memory, strict=True)) if a != b)
            return f"seed {seed}, {fault}: memory of {backend} differs from byte {first} on"
    if fault == "none" and timing_of(config, seed).stall_permille == 0:
        first_counters = counted[backends[0]]
        for backend, counters in counted.items():
            if counters != first_counters:
                return f"seed {seed}: {backends[0]} counts {first_counters}, {backend} {counters}"
    return None


def find_bus_mismatch(config: Config, seed: int, error: str, backends: Sequence[str] = ("fsim", "rtl")) -> str | None:
    """Return the first difference where memory answers one access with a bus error; None if there is none.

    What such a program leaves in memory and in the counters is undefined, the index too but for ``bus_fetch``.

    Parameters
    ----------
    config, seed, backends
        As of :func:`find_mismatch`.
    error : str
        ``"bus_fetch"``, ``"bus_read"`` or ``"bus_write"``.
    """
    access = None
    while access is None:
        program = random_program(config, seed)
        access = _access(program, error)
        seed += _NEXT_SEED
    index, first = access
    for backend in backends:
        result, _, _ = _run(config, seed, program, backend, "", (first, first + 8))
        if result.error != error or (error == "bus_fetch" and result.error_index != index):
            return f"seed {seed}, {error} at instruction {index}: {backend} ends with {result}"
    return None


BUS_ERRORS = ("bus_fetch", "bus_read", "bus_write")
"""Errors of :func:`find_bus_mismatch`."""


_NEXT_SEED = 1_000_000
"""From a seed to the next one, if its program makes no access of the kind that is asked for."""


def _access(program: RandomProgram, error: str) -> tuple[int, int] | None:
    """The first instruction that makes an access of that kind (of fetches, the middle one), and its address."""
    kinds: dict[str, type[Load] | type[Store]] = {"bus_read": Load, "bus_write": Store}
    kind = kinds.get(error)
    if kind is None:
        index = program.length // 2
        return index, program.start + index * INSTRUCTION_BYTES
    for index in range(program.length):
        at = program.start + index * INSTRUCTION_BYTES
        decoded = decode(bytes(program.memory[at : at + INSTRUCTION_BYTES]))
        if decoded is not None and isinstance(decoded.instruction, kind):
            return index, decoded.instruction.address // 8 * 8
    return None


def _run(
    config: Config, seed: int, program: RandomProgram, backend: str, kernels: str, faults: tuple[int, int] = (0, 0)
) -> tuple[Result, bytes, dict[str, int]]:
    """Result of a program on a device, its memory, and all counters."""
    size, threads = len(program.memory), 1 + seed % 3
    with open_device(
        backend, config, memory_bytes=size, timing=timing_of(config, seed), threads=threads, kernels=kernels
    ) as device:
        device.copy_in(0, program.memory)
        device.write_register("watchdog", WATCHDOG)
        device.set_faults(*faults)
        result = device.run(program.start, program.length)
        return result, device.copy_out(0, size), device.counters()
