"""Directives for tables from the code: ``phases`` of the compiler, ``layers`` of imports, ``measured`` result files."""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from tvm_ahcq.pipeline import COMPILE, PHASES

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
LAYERING = ROOT / "tests" / "test_layering.py"
"""Test that holds the layers, as a list from the lowest to the highest."""


def table(header: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> nodes.table:
    """Return a table of texts with columns of these relative widths."""
    parts = []
    for part, texts in ((nodes.thead(), [header]), (nodes.tbody(), rows)):
        for row in texts:
            part += nodes.row("", *[nodes.entry("", nodes.paragraph("", text)) for text in row])
        parts.append(part)
    columns = [nodes.colspec(colwidth=width) for width in widths]
    return nodes.table("", nodes.tgroup("", *columns, *parts, cols=len(header)))


def last_change(path: Path) -> str:
    """Return commit and date of the last change of a file; "unknown" outside of a git checkout."""
    command = ["git", "log", "-1", "--format=%h, %cs", "--", str(path)]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip() or "unknown"
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


class Measured(SphinxDirective):
    """Table of result files and commits."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [(path.name, last_change(path)) for path in sorted(RESULTS.glob("*.md"))]
        return [table(("file", "commit, date"), rows, (60, 40))]


class Phases(SphinxDirective):
    """Table of the phases of the compiler."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        rows = [(each.name, each.action, "compile" if each in COMPILE else "quantize") for each in PHASES]
        return [table(("phase", "does", "part of"), rows, (20, 65, 15))]


class Layers(SphinxDirective):
    """Table of the layers, highest first."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        (layers,) = (
            ast.literal_eval(node.value)
            for node in ast.parse(LAYERING.read_text()).body
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYERS"
        )
        rows = [(str(number), ", ".join(layer.split())) for number, layer in enumerate(layers, 1)]
        return [table(("layer", "folders and modules of tvm_ahcq"), rows[::-1], (10, 90))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_directive("layers", Layers)
    app.add_directive("measured", Measured)
    app.add_directive("phases", Phases)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
