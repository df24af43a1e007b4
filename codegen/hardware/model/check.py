"""The checks that every instruction passes before it is dispatched (SPEC 6)."""

from __future__ import annotations

from tvm_ahcq.codegen.isa.config import Config
from tvm_ahcq.codegen.isa.encoding import Decoded
from tvm_ahcq.codegen.isa.generated.isa import UNITS, Instruction, Load, Range

_LOAD_GRANULE, _ALL_UNITS = 4, (1 << len(UNITS)) - 1
_INVALID_ADD_MODE = 3


def check(decoded: Decoded | None, config: Config, window: tuple[int, int]) -> str:
    """Return the name of the first error of an instruction, ``"none"`` if it is legal.

    Parameters
    ----------
    decoded : Decoded or None
        The instruction; None if there is no such opcode.
    config : Config
        Sizes of the scratchpads.
    window : (int, int)
        First byte of external memory that a program may touch, and the first one past it.
    """
    if decoded is None:
        return "illegal_opcode"
    if not _fields_are_legal(decoded):
        return "illegal_field"
    instruction = decoded.instruction
    for touched in instruction.ranges:
        if touched.condition is not None and getattr(instruction, touched.condition[0]) != touched.condition[1]:
            continue
        in_memory = touched.memory == "dram"
        if in_memory and not _is_in_window(instruction, touched, config, window):
            return "address_range"
        if not in_memory and not _is_in_scratchpad(instruction, touched, config):
            return "scratchpad_range"
    return "none"


def _fields_are_legal(decoded: Decoded) -> bool:
    instruction, pop, push, reserved = decoded
    own_unit = _ALL_UNITS if instruction.unit == "none" else 1 << UNITS.index(instruction.unit)
    return (
        reserved == 0
        and not (pop | push) & own_unit
        and all(getattr(instruction, field) for field in instruction.nonzero)
        and (not instruction.memories or getattr(instruction, "memory", None) in instruction.memories)
        and getattr(instruction, "add_mode", 0) != _INVALID_ADD_MODE
    )


def _reach(instruction: Instruction, touched: Range) -> int:
    """Distance between the first and the last stretch of a range."""
    return sum((getattr(instruction, count) - 1) * getattr(instruction, stride) for count, stride in touched.terms)


def _is_in_window(instruction: Instruction, touched: Range, config: Config, window: tuple[int, int]) -> bool:
    granule = _LOAD_GRANULE if isinstance(instruction, Load) else config.beat_bytes
    start = getattr(instruction, touched.base)
    strides = [getattr(instruction, stride) for _, stride in touched.terms]
    end = start + _reach(instruction, touched) + 8 * getattr(instruction, touched.tail)
    return all(value % granule == 0 for value in (start, *strides)) and window[0] <= start and end <= window[1]


def _is_in_scratchpad(instruction: Instruction, touched: Range, config: Config) -> bool:
    memory = getattr(instruction, touched.memory) if touched.memory == "memory" else touched.memory
    length = {"dim": config.dim, "one": 1}.get(touched.tail) or getattr(instruction, touched.tail)
    words = config.words(memory, length) if touched.tail == "length" else length
    if words is None:
        return False
    return getattr(instruction, touched.base) + _reach(instruction, touched) + words <= config.depth(memory)
