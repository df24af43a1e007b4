"""The checks that every instruction passes before it is dispatched (SPEC 6)."""

from __future__ import annotations

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.encoding import fields_of
from tvm_ahcq.codegen.isa.generated.isa import INSTRUCTIONS, MEMORIES, UNITS

_NAMES = {number: name for name, number in MEMORIES.items()}


def check(data: bytes, config: Config, window: tuple[int, int]) -> str:
    """Name of the first error of an instruction, ``"none"`` if it is legal.

    Parameters
    ----------
    data : bytes
        The 32 bytes of the instruction.
    config : Config
        Sizes of the scratchpads.
    window : (int, int)
        First byte of external memory that a program may touch, and the first one past it.
    """
    name, values = fields_of(data)
    if name is None:
        return "illegal_opcode"
    entry = INSTRUCTIONS[name]
    if not _fields_are_legal(name, values):
        return "illegal_field"
    for memory, base, terms, tail, *condition in entry["range"]:
        memory = _NAMES[values["memory"]] if memory == "memory" else memory
        if condition and not _holds(condition[0], values):
            continue
        start = values[base]
        reach = sum((values[count] - 1) * values[stride] for count, stride in terms)
        length = {"dim": config.dim, "one": 1}.get(tail) or values[tail]
        if memory == "dram":
            granule = 4 if name == "load" else config.beat_bytes
            strides = [values[stride] for _, stride in terms]
            aligned = all(value % granule == 0 for value in (start, *strides))
            if not aligned or start < window[0] or start + reach + 8 * length > window[1]:
                return "address_range"
            continue
        words = config.words(memory, length) if tail == "length" else length
        if words is None or start + reach + words > config.depth(memory):
            return "scratchpad_range"
    return "none"


def _fields_are_legal(name: str, values: dict[str, int]) -> bool:
    entry = INSTRUCTIONS[name]
    own = 15 if entry["unit"] == "none" else 1 << UNITS.index(entry["unit"])
    return (
        values["reserved"] == 0
        and not (values["pop"] | values["push"]) & own
        and all(values[field] for field in entry["nonzero"])
        and ("memories" not in entry or _NAMES.get(values["memory"]) in entry["memories"])
        and values.get("add_mode") != 3
    )


def _holds(condition: str, values: dict[str, int]) -> bool:
    name, _, value = condition.partition("=")
    return values[name] == int(value) if value else bool(values[name])
