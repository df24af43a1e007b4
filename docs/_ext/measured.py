"""Directive ``measured``: the result files of the benchmarks, and the commit that last changed each."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"


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
        body = nodes.tbody()
        for path in [None, *sorted(RESULTS.glob("*.md"))]:
            texts = ("file", "commit, date") if path is None else (path.name, last_change(path))
            cells = [nodes.entry("", nodes.paragraph("", text)) for text in texts]
            body += nodes.row("", *cells)
        header = nodes.thead("", body.pop(0))
        columns = [nodes.colspec(colwidth=width) for width in (60, 40)]
        return [nodes.table("", nodes.tgroup("", *columns, header, body, cols=2))]


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
