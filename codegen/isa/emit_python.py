"""The Python form of the instruction set: one frozen dataclass an instruction, and constants."""

from __future__ import annotations

import pprint
from typing import Any

_CONSTANTS = {
    "VERSION": ("version", "int"),
    "UNITS": ("units", "list[str]"),
    "LIMITS": ("limits", "dict[str, int]"),
    "MEMORIES": ("memories", "dict[Memory, int]"),
    "ERRORS": ("errors", "dict[str, int]"),
    "REGISTERS": ("registers", "dict[str, tuple[int, str]]"),
    "EXACT_COUNTERS": ("exact_counters", "list[str]"),
    "CONFIGS": ("configs", "dict[str, dict[str, int]]"),
}
"""Constant -> key of the definition, type."""

_TYPES = '''
class Field(NamedTuple):
    """First bit and width of a field."""

    bit: int
    width: int


class Range(NamedTuple):
    """Words of a memory that an instruction touches: ``base .. base + sum (count - 1) * stride + tail``.

    `memory` is "memory" for the one that the instruction names; `terms` are fields (count, stride); `tail` is a field,
    or "dim" or "one"; `condition` is a field and the value with which the range counts.
    """

    memory: str
    base: str
    terms: tuple[tuple[str, str], ...]
    tail: str
    condition: tuple[str, int] | None


class Instruction:
    """Base class of all instructions; tokens are not part of them."""

    __slots__ = ()

    name: ClassVar[str]
    opcode: ClassVar[int]
    unit: ClassVar[str]
    bits: ClassVar[int]
    layout: ClassVar[dict[str, Field]]
    nonzero: ClassVar[tuple[str, ...]]
    memories: ClassVar[tuple[Memory, ...]]
    writes: ClassVar[tuple[str, ...]]
    ranges: ClassVar[tuple[Range, ...]]
'''


def python_text(isa: dict[str, Any], notice: str) -> str:
    """Return the definition as a Python module.

    Parameters
    ----------
    isa : dict
        From :func:`.generate.read_definition`.
    notice : str
        First line of the docstring.
    """
    header = {name: next(iter(isa["instructions"].values()))["fields"][name] for name in isa["header"]}
    memories = ", ".join(f'"{name}"' for name in isa["memories"])
    lines = [f'"""{notice}"""', "", "# fmt: off", "# ruff: noqa: E501", "from __future__ import annotations", ""]
    lines += ["from dataclasses import dataclass", "from typing import ClassVar, Literal, NamedTuple", ""]
    lines += [f"Memory = Literal[{memories}]", "", *_TYPES.splitlines(), "", f"HEADER = {_layout(header)}", ""]
    for constant, (key, annotation) in _CONSTANTS.items():
        value = {name: tuple(entry) for name, entry in isa[key].items()} if key == "registers" else isa[key]
        text = pprint.pformat(value, width=110, sort_dicts=False).replace("'", '"')
        lines.append(f"{constant}: {annotation} = {text}")
    for name, entry in isa["instructions"].items():
        lines += ["", "", *_class(name, entry, header)]
    classes = ", ".join(name.capitalize() for name in isa["instructions"])
    return "\n".join([*lines, "", "", f"INSTRUCTIONS: tuple[type[Instruction], ...] = ({classes})"]) + "\n"


def _class(name: str, entry: dict[str, Any], header: dict[str, list[int]]) -> list[str]:
    """Lines of the dataclass of an instruction; fields that must not be 0 have no default."""
    fields = {field: place for field, place in entry["fields"].items() if field not in header}
    lines = ["@dataclass(frozen=True, kw_only=True, slots=True)", f"class {name.capitalize()}(Instruction):"]
    lines += [f'    """{entry["doc"]}"""', ""]
    lines += [f'    name: ClassVar[str] = "{name}"', f"    opcode: ClassVar[int] = {entry['opcode']}"]
    lines += [f'    unit: ClassVar[str] = "{entry["unit"]}"', f"    bits: ClassVar[int] = {entry['bits']}"]
    lines += [f"    layout: ClassVar[dict[str, Field]] = {_layout(fields)}"]
    lines += [f"    nonzero: ClassVar[tuple[str, ...]] = {_tuple(entry['nonzero'])}"]
    lines += [f"    memories: ClassVar[tuple[Memory, ...]] = {_tuple(entry.get('memories', []))}"]
    lines += [f"    writes: ClassVar[tuple[str, ...]] = {_tuple(entry['writes'])}"]
    ranges = [f"        {_range(check)}," for check in entry["range"]]
    lines += ["    ranges: ClassVar[tuple[Range, ...]] = (", *ranges, "    )"]
    for field in fields:
        annotation = "Memory" if field == "memory" else "int"
        default = "" if field == "memory" or field in entry["nonzero"] else " = 0"
        lines.append(f"    {field}: {annotation}{default}")
    return lines


def _layout(fields: dict[str, list[int]]) -> str:
    return "{" + ", ".join(f'"{name}": Field({bit}, {width})' for name, (bit, width) in fields.items()) + "}"


def _tuple(names: list[str]) -> str:
    listed = ", ".join(f'"{name}"' for name in names)
    return f"({listed}{',' if len(names) == 1 else ''})"


def _range(check: list[Any]) -> str:
    memory, base, terms, tail, *condition = check
    pairs = [f'("{count}", "{stride}")' for count, stride in terms]
    listed = f"({', '.join(pairs)}{',' if len(pairs) == 1 else ''})"
    holds = "None"
    if condition:
        field, _, value = condition[0].partition("=")
        holds = f'("{field}", {value or 1})'
    return f'Range("{memory}", "{base}", {listed}, "{tail}", {holds})'
