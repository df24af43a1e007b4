"""The cache of imported graphs: what it keeps apart, and what it survives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import tvm
from torch import nn

from tvm_ahcq.models import graph_cache
from tvm_ahcq.models.export import export_module

SOURCE = """
from torch import nn

class Block(nn.Module):
    def forward(self, x):
        return x + 1
"""


class Layer(nn.Module):
    """A linear layer, a tensor that is no parameter, and a setting."""

    def __init__(self, slope: float = 0.5, offset: float = 1.0, outputs: int = 3):
        super().__init__()
        self.linear, self.slope = nn.Linear(4, outputs), slope
        self.offset = torch.full((outputs,), offset)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * self.linear(x) + self.offset


class Enclosing(nn.Module):
    """Holds a function."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.linear, self.function = nn.Linear(4, 3), function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x))


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "tvm-ahcq" / "graphs"


def take(module: nn.Module, rows: int = 2, dim: str = "N") -> tuple[tvm.relax.Function, list[str]]:
    return export_module(module, "layer", {"x": torch.zeros(rows, 4)}, {"x": {0: dim}})


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*")}


def test_a_graph_is_read_back_as_it_was_imported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    function, params = take(Layer())
    assert len(files(folder)) == 1
    monkeypatch.setattr(torch.export, "export", None)
    again, names = take(Layer())  # other weights, the same graph
    assert names == params == ["linear.weight", "linear.bias"]
    tvm.ir.assert_structural_equal(again, function)
    assert again.script(show_meta=True) == function.script(show_meta=True)
    assert len(files(folder)) == 1


@pytest.mark.parametrize(
    ("module", "rows", "dim"),
    [
        (Layer(slope=0.25), 2, "N"),
        (Layer(offset=2.0), 2, "N"),
        (Layer(outputs=5), 2, "N"),
        (Layer(), 3, "N"),
        (Layer(), 2, "rows"),
        (nn.Sequential(Layer()), 2, "N"),
    ],
    ids=["setting", "tensor that is no parameter", "shape of a parameter", "input", "name of a dimension", "class"],
)
def test_what_makes_another_graph_has_another_file(folder: Path, module: nn.Module, rows: int, dim: str) -> None:
    take(Layer())
    before = files(folder)
    if isinstance(module, nn.Sequential):
        export_module(module, "layer", {"input": torch.zeros(rows, 4)}, {"input": {0: dim}})
    else:
        take(module, rows, dim)
    assert len(files(folder)) == 2 and files(folder) > before


def test_changed_sources_make_another_graph(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    request.addfinalizer(lambda: sys.modules.pop("graph_cache_block", None))
    bodies = []
    for number in (1, 2):
        (tmp_path / "graph_cache_block.py").write_text(SOURCE.replace("x + 1", f"x + {number}"))
        sys.modules.pop("graph_cache_block", None)
        sys.path_importer_cache.clear()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        graph_cache._sources.cache_clear()
        graph_cache._sources_of.cache_clear()
        function, _ = take(__import__("graph_cache_block").Block())
        bodies.append(function.script())
    assert len(files(folder)) == 2 and bodies[0] != bodies[1]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"params": []}', b'{"params": [], "function": "x"}', b"\xff"])
def test_a_damaged_file_is_imported_anew(folder: Path, content: bytes) -> None:
    function, params = take(Layer())
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    path.write_bytes(content)
    again, names = take(Layer())
    tvm.ir.assert_structural_equal(again, function)
    assert names == params and path.read_bytes() == whole


def test_without_a_place_to_write_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"cannot be kept in .*file.*set XDG_CACHE_HOME"):
        assert take(Layer())[1] == ["linear.weight", "linear.bias"]
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("function", [lambda x: 2 * x, nn.Softsign().forward], ids=["lambda", "method of an object"])
def test_a_module_with_something_unknown_is_not_kept(folder: Path, function: Callable) -> None:
    assert take(Enclosing(function))[1] == ["linear.weight", "linear.bias"]
    assert not files(folder)


def test_a_module_that_holds_itself_is_not_kept(folder: Path) -> None:
    module = Layer()
    module.parents = [module]
    assert take(module)[1] == ["linear.weight", "linear.bias"]
    assert not files(folder)


def test_a_function_of_torch_is_known(folder: Path) -> None:
    for function in (torch.relu, torch.sigmoid):
        take(Enclosing(function))
    assert len(files(folder)) == 2
