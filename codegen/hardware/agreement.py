"""One random program on the model and on a device: do memory, error and counters agree?"""

from __future__ import annotations

from .config import Config
from .model.machine import Machine
from .random_program import random_program
from .simulator import RtlDevice, Timing

WATCHDOG = 3000
"""Cycles; more than any instruction of a random program takes, stalls included."""


def timing_of(seed: int) -> Timing:
    """Different memories for different seeds: latency, width, stalls."""
    return Timing(latency=(1, 7, 40, 90)[seed % 4], bytes_per_cycle=(8, 8, 4, 2)[seed // 4 % 4],
                  stall_permille=(0, 100, 500)[seed % 3], seed=seed)  # fmt: skip


def disagreement(config: Config, seed: int, fault: str = "none") -> str | None:
    """What differs between the model and the RTL, None if nothing does."""
    program = random_program(config, seed, fault)
    memory = bytearray(program.memory)
    wanted = Machine(config, memory).run(program.start, program.length)
    with RtlDevice(config, len(memory), timing_of(seed)) as device:
        device.copy_in(0, program.memory)
        device.write_register("watchdog", WATCHDOG)
        found = device.run(program.start, program.length)
        result = device.copy_out(0, len(memory))
    if found != wanted:
        return f"seed {seed}, {fault}: the model ends with {wanted}, the RTL with {found}"
    if result != memory:
        first = next(i for i, (a, b) in enumerate(zip(result, memory, strict=True)) if a != b)
        return f"seed {seed}, {fault}: memory differs from byte {first} on"
    return None
