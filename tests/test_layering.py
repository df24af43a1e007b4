"""Rules that hold for all Python files of the package: imports point down, sizes are bounded, SAM stays in ``models``.

Imports count wherever they stand, in functions too. For circles even those under ``if TYPE_CHECKING`` count, since two
files that name each other's types cannot be read one after the other.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

import tvm_ahcq

PACKAGE = Path(tvm_ahcq.__file__).parent

LAYERS = (
    "tvm_ahcq errors progress _deprecated",
    "atomic_file frames image_files mask_files scenes video_file",
    "clips",
    "quantizers.core",
    "quantizers quantizers.activation",
    "quantizers.weight quantizers.published",
    "quantizers.core.table quantizers.core.table_sidecar",  # knows the parameters of every quantizer
    # families follow below
    "models.description models.evaluation models.execution models.float_model models.links models.registry "
    "models.shapes",
    "runtime",
    "target",
    "ir",
    "models",
    "kernels.common",
    "kernels.float32 kernels.encode",
    "kernels.gemm",
    "kernels kernels.attention",
    "codegen.isa",
    "codegen.hardware",
    "codegen.lower",
    "codegen.devices codegen.hardware.cosim",  # cosim opens devices
    "codegen",
    "torch_exec",
    "tune",
    "tune.host",
    "tune.accelerator",
    "relay_passes relay_passes.lower",
    "calibrate",
    "export_library",
    "pipeline",
    "api",
    "evaluate.datasets evaluate.metrics",
    "evaluate.sensitivity",
    "evaluate evaluate.report",
    "bench",
    "cli",
)
"""Folders and modules from the lowest layer to the highest; the longest name that fits a module gives its layer.

A module imports modules of its own layer and of those below.
"""

MOST_LINES, MOST_LINES_OF_A_FUNCTION, MOST_PARAMETERS = 400, 45, 7

SAM_NAME = re.compile(r"encode_image|decode_mask|image_encoder|mask_decoder|vit_[tblh]|hiera")
SAM_TEXT = re.compile(SAM_NAME.pattern + r"|blocks\.(?!\s|$)")


@dataclass(frozen=True)
class Module:
    """One Python file."""

    name: str
    path: Path
    text: str
    tree: ast.Module

    @property
    def package(self) -> str:
        """The package that relative imports start from."""
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]


@cache
def modules() -> dict[str, Module]:
    """All modules by name relative to ``tvm_ahcq``; the package itself is ``""``."""
    result = {}
    for folder in (PACKAGE, PACKAGE / "relay_passes", PACKAGE / "codegen"):
        for path in sorted(folder.resolve().rglob("*.py")):
            inner = folder.relative_to(PACKAGE) / path.relative_to(folder.resolve())
            name = ".".join(part for part in inner.with_suffix("").parts if part != "__init__")
            text = path.read_text()
            result[name] = Module(name, path, text, ast.parse(text))
    return result


def imported(module: Module, node: ast.AST) -> list[str]:
    """Modules of the package that an import statement names."""
    if isinstance(node, ast.Import):
        names = [alias.name.split(".") for alias in node.names]
        return [".".join(rest) for root, *rest in names if root == "tvm_ahcq"]
    if not isinstance(node, ast.ImportFrom):
        return []
    if node.level:
        parents = module.package.split(".") if module.package else []
        base = parents[: len(parents) - node.level + 1]
    else:
        root, *base = (node.module or "").split(".")
        if root != "tvm_ahcq":
            return []
    if node.level and node.module:
        base += node.module.split(".")
    below = [".".join([*base, alias.name]) for alias in node.names]
    return [name if name in modules() else ".".join(base) for name in below]


def imports(module: Module, type_checking: bool) -> Iterator[str]:
    """Modules that a module imports, in functions too; with or without those for type checkers alone."""
    pending: list[ast.AST] = [module.tree]
    while pending:
        node = pending.pop()
        children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not type_checking:
            children = list(node.orelse)
        pending += children
        for name in imported(module, node):
            assert name in modules(), f"{module.name} imports tvm_ahcq.{name}, which does not exist"
            if name != module.name:
                yield name


def loaded(module: Module) -> set[str]:
    """Modules that a module imports, and the packages around those unless they are around this one too."""
    result = set()
    for name in imports(module, type_checking=True):
        parts = name.split(".")
        packages = {".".join(parts[:count]) for count in range(1, len(parts))}
        result |= {name} | {package for package in packages if not f"{module.name}.".startswith(f"{package}.")}
    return result


def layer(name: str) -> int:
    """Number of the layer of a module."""
    fits = [
        (len(entry), number)
        for number, row in enumerate(LAYERS)
        for entry in row.split()
        if f"{name or 'tvm_ahcq'}.".startswith(f"{entry}.")
    ]
    assert fits, f"{name} has no layer: add its folder to LAYERS"
    return max(fits)[1]


def circles() -> set[tuple[str, ...]]:
    """Groups of modules that import one another (strongly connected components, by Tarjan)."""
    graph = {name: sorted(loaded(module)) for name, module in modules().items()}
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups = set()

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        stack.append(name)
        for other in graph[name]:
            if other not in order:
                visit(other)
                lowest[name] = min(lowest[name], lowest[other])
            elif other in stack:
                lowest[name] = min(lowest[name], order[other])
        if lowest[name] == order[name]:
            start = stack.index(name)
            if len(stack) - start > 1:
                groups.add(tuple(sorted(stack[start:])))
            del stack[start:]

    for name in graph:
        if name not in order:
            visit(name)
    return groups


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """All functions and methods, nested ones too."""
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{module.name}.{node.name}", node


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Number of parameters, without ``self`` and ``cls``."""
    args = function.args
    named = [arg.arg for arg in (*args.posonlyargs, *args.args, *args.kwonlyargs)]
    return len([name for name in named if name not in ("self", "cls")]) + bool(args.vararg) + bool(args.kwarg)


def sam_names(module: Module) -> list[str]:
    """Names and texts of a module that are SAM's, without docstrings and without examples of the command line."""
    passed_over: set[ast.AST] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):  # docstrings of anything
            passed_over.add(node.value)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "EXAMPLES":
            passed_over.update(ast.walk(node))
    found = []
    for node in ast.walk(module.tree):
        if node in passed_over:
            continue
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SAM_TEXT.search(node.value):
            found.append(node.value)
        identifiers = [getattr(node, field, None) for field in ("id", "attr", "arg", "name", "module")]
        found += [text for text in identifiers if isinstance(text, str) and SAM_NAME.search(text)]
    return found


def test_no_imports_form_a_circle() -> None:
    assert not circles()


def test_imports_point_down() -> None:
    upward = {
        (name, other)
        for name, module in modules().items()
        for other in imports(module, type_checking=False)
        if layer(other) > layer(name)
    }
    assert not sorted(upward)


@pytest.mark.parametrize("entry", " ".join(LAYERS).split())
def test_every_layer_has_a_module(entry: str) -> None:
    assert any(layer(name) == layer(entry) and f"{name}.".startswith(f"{entry}.") for name in modules()) or (
        entry == "tvm_ahcq"
    )


def test_files_are_short() -> None:
    long = {name for name, module in modules().items() if module.text.count("\n") > MOST_LINES}
    assert not long


def test_few_functions_are_long() -> None:
    lines = [(name, (node.end_lineno or 0) - node.lineno + 1) for name, node in functions()]
    long = [name for name, count in lines if count > MOST_LINES_OF_A_FUNCTION]
    assert len(long) <= 0.03 * len(lines), long


def test_few_functions_have_many_parameters() -> None:
    counts = [(name, parameters(node)) for name, node in functions()]
    wide = [name for name, count in counts if count > MOST_PARAMETERS]
    assert len(wide) <= 0.02 * len(counts), wide


def test_only_models_know_the_names_of_sam() -> None:
    found = {name: sam_names(module) for name, module in modules().items() if name != "_deprecated"}
    outside = {name: texts for name, texts in found.items() if texts and not name.startswith("models.")}
    assert not outside
