"""One random program on the model and on devices: do memory, error and counters agree?"""

from __future__ import annotations

from collections.abc import Sequence

from ..device import Timing, open_device
from .config import Config
from .model.machine import Machine
from .random_program import random_program

WATCHDOG = 3000
"""Cycles; more than any instruction of a random program takes, stalls included."""


def timing_of(seed: int) -> Timing:
    """Different memories for different seeds: latency, width, stalls."""
    return Timing(latency=(1, 7, 40, 90)[seed % 4], bytes_per_cycle=(8, 8, 4, 2)[seed // 4 % 4],
                  stall_permille=(0, 100, 500)[seed % 3], seed=seed)  # fmt: skip


def disagreement(
    config: Config, seed: int, fault: str = "none", backends: Sequence[str] = ("fsim", "rtl")
) -> str | None:
    """What differs between the model and a device, None if nothing does.

    Memory, error code, its index and the exact counters are compared; where nothing stalls and nothing goes wrong, also
    every other counter, between devices.
    """
    program = random_program(config, seed, fault)
    memory = bytearray(program.memory)
    wanted = Machine(config, memory).run(program.start, program.length)
    timing = timing_of(seed)
    estimates = []
    for backend in backends:
        with open_device(backend, config, memory_bytes=len(memory), timing=timing, threads=1 + seed % 3) as device:
            device.copy_in(0, program.memory)
            device.write_register("watchdog", WATCHDOG)
            found = device.run(program.start, program.length)
            result, counters = device.copy_out(0, len(memory)), device.counters()
        if found != wanted:
            return f"seed {seed}, {fault}: the model ends with {wanted}, {backend} with {found}"
        if result != memory:
            first = next(i for i, (a, b) in enumerate(zip(result, memory, strict=True)) if a != b)
            return f"seed {seed}, {fault}: memory of {backend} differs from byte {first} on"
        estimates.append(counters)
    if fault == "none" and timing.stall_permille == 0:
        for backend, counters in zip(backends, estimates, strict=True):
            if counters != estimates[0]:
                return f"seed {seed}: {backends[0]} counts {estimates[0]}, {backend} {counters}"
    return None
