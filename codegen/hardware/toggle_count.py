"""Toggles of flip-flops: which signals of a design are flip-flops, and how often a simulation saw them change.

A simulation that was built with ``toggles`` writes a SAIF file (IEEE 1801, annex on the switching activity interchange
format): for every bit of every signal the number of its changes, ``TC``. Which of the signals are flip-flops is taken
from Verilator's syntax tree: what a nonblocking assignment writes, but for words that an address chooses, which are
memories.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tvm_ahcq.errors import DeviceError

from .simulator import verilator

Node = dict[str, Any]


@dataclass(frozen=True)
class Register:
    """Flip-flops of one name.

    Attributes
    ----------
    path : str
        Instances and name, below the top module: ``u_matrix.u_array.gen_row[0].swap_q``.
    module : str
        Where it is declared, without parameters.
    bits : int
        Flip-flops.
    toggles : int
        Changes of all of them, also those of a bit that is 1 when counting begins.
    """

    path: str
    module: str
    bits: int
    toggles: int


@dataclass
class _Module:
    """Contents of one module of the syntax tree; paths are relative to it."""

    name: str
    names: dict[str, str] = field(default_factory=dict)
    """Path of each variable, by its address in the tree."""
    cells: list[tuple[str, str]] = field(default_factory=list)
    """Path and module (address) of each instance."""
    written: set[str] = field(default_factory=set)
    memories: set[str] = field(default_factory=set)


def flip_flops(top: str, sources: Sequence[Path], options: Sequence[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Paths of flip-flops with their modules, and paths of memories.

    Parameters
    ----------
    top : str
        Top module.
    sources : sequence of Path
        SystemVerilog files, packages first.
    options : sequence of str
        ``-GName=value`` and others of Verilator.
    """
    with tempfile.TemporaryDirectory() as folder:
        verilator(
            "--json-only",
            "-Wno-fatal",
            "-Wno-lint",
            "--top-module",
            top,
            *options,
            "--Mdir",
            folder,
            *map(str, sources),
        )
        tree = json.loads((Path(folder) / f"V{top}.tree.json").read_text())
    modules = {node["addr"]: _module(node) for node in tree["modulesp"] if node["type"] == "MODULE"}
    paths: dict[str, str] = {}
    memories: list[str] = []
    for prefix, module in _instances(next(m for m in modules.values() if m.name == top), modules):
        paths |= {prefix + module.names[addr]: module.name for addr in module.written - module.memories}
        memories += [prefix + module.names[addr] for addr in module.memories]
    return paths, sorted(memories)


def _instances(module: _Module, modules: Mapping[str, _Module], prefix: str = "") -> Iterator[tuple[str, _Module]]:
    """A module and all below it, each with the path in front of its names."""
    yield prefix, module
    for path, address in module.cells:
        yield from _instances(modules[address], modules, f"{prefix}{path}.")


def _module(node: Node) -> _Module:
    module = _Module(node["origName"])
    _collect(node, module, "")
    return module


def _collect(node: Node, module: _Module, prefix: str) -> None:
    """Adds what lies below a node; blocks of ``generate`` are part of paths."""
    if node["type"] == "GENBLOCK" and node["name"]:
        prefix = f"{prefix}{node['name']}."
    for child in _children(node):
        if child["type"] == "VAR":
            module.names[child["addr"]] = prefix + child["name"]
        elif child["type"] == "CELL":
            module.cells.append((prefix + child["name"], child["modp"]))
        elif child["type"] == "ASSIGNDLY":
            _written(child["lhsp"], module, False)
        _collect(child, module, prefix)


def _written(targets: list[Node], module: _Module, addressed: bool) -> None:
    """Variables on the left of an assignment; a memory's word is chosen by what is no constant."""
    for node in targets:
        if node["type"] == "VARREF":
            (module.memories if addressed else module.written).add(node["varp"])
        elif node["type"] == "ARRAYSEL":
            _written(node["fromp"], module, addressed or node["bitp"][0]["type"] != "CONST")
        elif node["type"] in ("SEL", "STRUCTSEL"):
            _written(node["fromp"], module, addressed)
        else:
            _written(list(_children(node)), module, addressed)


def _children(node: Node) -> Iterator[Node]:
    for value in node.values():
        if isinstance(value, list):
            yield from (child for child in value if isinstance(child, dict) and "type" in child)


_LINE = re.compile(r"\s*\(INSTANCE (?P<scope>\S+)|\s*\((?P<net>\S+) \(T0 .*\(TC (?P<count>\d+)\)|(?P<close>\s*\)\s*$)")


def read_saif(path: Path, top: str) -> dict[str, tuple[int, int]]:
    """Bits and toggles of each signal, by its path below `top`; elements of an array are taken together.

    Raises
    ------
    DeviceError
        If there is no module `top` in it.
    """
    signals: dict[str, tuple[int, int]] = {}
    scopes: list[str | None] = []  # None: a bracket that is no instance
    with path.open() as lines:
        for line in lines:
            match = _LINE.match(line)
            if match is None:
                if line.strip() == "(NET":
                    scopes.append(None)
            elif match["scope"]:
                scopes.append(match["scope"].replace("\\", ""))
            elif match["net"]:
                names = [scope for scope in scopes if scope is not None]
                if top in names:
                    name = re.sub(r"(\\?\[\d+\\?\])+$", "", match["net"])
                    key = ".".join([*names[names.index(top) + 1 :], name])
                    bits, toggles = signals.get(key, (0, 0))
                    signals[key] = bits + 1, toggles + int(match["count"])
            elif scopes:
                scopes.pop()
    if not signals:
        raise DeviceError(f"{path} has no signals of {top}: was the simulation built with toggles, and closed?")
    return signals


def registers(saif: Path, top: str, known: Mapping[str, str]) -> tuple[list[Register], list[str]]:
    """Flip-flops of a design with their toggles, and paths of those that the file does not have.

    Parameters
    ----------
    saif : Path
        What a simulation wrote.
    top : str
        Top module.
    known : mapping of str to str
        Flip-flops and their modules, of :func:`flip_flops`.
    """
    seen = read_saif(saif, top)
    counted = [Register(path, module, *seen[path]) for path, module in known.items() if path in seen]
    return counted, sorted(path for path in known if path not in seen)
