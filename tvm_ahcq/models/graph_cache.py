"""Keeps imported Relax functions in ``$XDG_CACHE_HOME/tvm-ahcq/graphs`` (``~/.cache`` by default).

Importing a model by ``torch.export`` takes ten seconds or more, reading it back less than one. The name of a file is a
digest of all that a graph depends on: the modules with their settings, the tensors outside the state dict, the inputs,
and the sources or versions of all packages involved. Weights are no part of a graph.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
import tvm
from torch import nn
from tvm import relax

from tvm_ahcq.atomic_file import atomic_file

Imported = tuple[relax.Function, list[str]]
"""A function, and the state-dict names of its parameters."""

_OWN = Path(__file__).resolve().parent
"""Sources that decide about a graph: how modules are wrapped and converted."""

_BY_VERSION = {"torch": "torch", "tvm": "apache-tvm", "torchvision": "torchvision"}
"""Packages whose version stands for their sources, with the names of their distributions."""


def cached(
    module: nn.Module,
    name: str,
    inputs: Mapping[str, torch.Tensor],
    symbolic: Mapping[str, Mapping[int, str]],
    make: Callable[[], Imported],
) -> Imported:
    """Return what `make` returns, from the cache if it is there, and keep it there.

    Parameters
    ----------
    module : torch.nn.Module
        What is imported. If it holds objects whose meaning for the graph is not known, nothing is cached.
    name : str
        Name of the function.
    inputs : mapping of str to torch.Tensor
        Example inputs; their shapes and dtypes count.
    symbolic : mapping of str to mapping of int to str
        Names of symbolic dimensions by input and axis.
    make : callable
        Imports the module.
    """
    try:
        path = _path(module, name, inputs, symbolic)
    except (TypeError, RecursionError):  # what it is made of is not known
        return make()
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return tvm.ir.load_json(stored["function"]), stored["params"]
    except Exception:  # absent, or damaged in whatever way
        function, params = make()
    _write(path, json.dumps({"params": params, "function": tvm.ir.save_json(function)}))
    return function, params


def _write(path: Path, text: str) -> None:
    """Write a file at once, or warn that there is no cache."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            file.write(text.encode())
    except OSError as error:
        warnings.warn(
            f"imported graphs cannot be kept in {path.parent}, so each process imports them anew: {error}; "
            "set XDG_CACHE_HOME to a folder that can be written",
            stacklevel=2,
        )


def _path(
    module: nn.Module, name: str, inputs: Mapping[str, torch.Tensor], symbolic: Mapping[str, Mapping[int, str]]
) -> Path:
    """Return the file of a function; TypeError for a module that holds something unknown."""
    kept, packages = set(module.state_dict(keep_vars=True)), {"torch", "tvm"}
    parts = [name, *(f"{key} {value.dtype} {tuple(value.shape)}" for key, value in inputs.items())]
    parts.append(repr({key: sorted(axes.items()) for key, axes in symbolic.items()}))
    parts += _describe(module, "", kept, packages)
    digest = hashlib.sha256("\n".join([*parts, *map(_sources, sorted(packages)), _sources_of(_OWN)]).encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tvm-ahcq" / "graphs"
    return root / f"{digest.hexdigest()[:32]}.json"


def _describe(value: Any, place: str, kept: set[str], packages: set[str]) -> Iterator[str]:
    """Yield lines that tell a value from others that make another graph; collect the packages of its classes.

    Tensors of the state dict, `kept`, count by their shapes, all others by their contents.
    """
    if isinstance(value, nn.Module):
        packages.add(_package(type(value)))
        yield f"{place} {type(value).__module__}.{type(value).__qualname__}"
        prefix = f"{place}." if place else ""
        for key, held in sorted(vars(value).items()):
            if key in ("_parameters", "_buffers", "_modules"):
                for child, one in held.items():
                    yield from _describe(one, f"{prefix}{child}", kept, packages)
            else:
                yield from _describe(held, f"{prefix}{key}", kept, packages)
    elif isinstance(value, torch.Tensor):
        content = "" if place in kept else hashlib.sha256(value.detach().cpu().numpy().tobytes()).hexdigest()
        yield f"{place} {value.dtype} {tuple(value.shape)} {content}"
    elif isinstance(value, Mapping):
        for key, held in value.items():
            yield from _describe(held, f"{place}[{key!r}]", kept, packages)
    elif isinstance(value, (list, tuple)):
        for index, held in enumerate(value):
            yield from _describe(held, f"{place}[{index}]", kept, packages)
    elif isinstance(value, (set, frozenset)):
        yield f"{place} {sorted(map(repr, value))}"
    elif isinstance(value, functools.partial):
        yield from _describe((value.func, value.args, value.keywords), place, kept, packages)
    elif isinstance(value, (type, FunctionType, BuiltinFunctionType)):
        packages.add(_package(value))
        yield f"{place} {value.__module__}.{value.__qualname__}"
    elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
        yield f"{place} {value!r}"
    else:
        raise TypeError(f"{place}: {type(value)}")


def _package(value: Any) -> str:
    """Return the name of the package that defines a class or a function, or of its module if it is in no package;
    TypeError for one that has no name there."""
    module = value.__module__
    if module is None or "<" in value.__qualname__:  # of a function's inside: what it closes over is not known
        raise TypeError(value.__qualname__)
    package = str(module).partition(".")[0]
    return package if package in _BY_VERSION or getattr(sys.modules.get(package), "__file__", None) else module


@functools.cache
def _sources(package: str) -> str:
    """Return a digest of the version or of all sources of an imported package."""
    if package == "tvm_ahcq":
        return ""  # _OWN is always part of the name
    if package in _BY_VERSION:
        try:
            return f"{package} {version(_BY_VERSION[package])}"
        except PackageNotFoundError:
            return f"{package} {getattr(sys.modules[package], '__version__', '')}"
    file = getattr(sys.modules.get(package), "__file__", None)
    if file is None:
        raise TypeError(package)
    path = Path(file)
    return f"{package} {_sources_of(path.parent if path.name == '__init__.py' else path)}"


@functools.cache
def _sources_of(path: Path) -> str:
    """Return a digest of a source file, or of all below a folder."""
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
        digest.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return digest.hexdigest()
