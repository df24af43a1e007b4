"""Help of every command as a page section, written from the argument parsers before each build."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from tvm_ahcq.cli.main import build_parser

FILE = Path("generated", "commands.md")
COLUMNS = "100"
"""Width of the usage lines."""


def commands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of every command by its name."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def section(name: str, parser: argparse.ArgumentParser) -> str:
    """Return the Markdown section of one command."""
    lines = [f"## {name}", "", str(parser.description), "", "```text", parser.format_usage().rstrip(), "```", ""]
    for group in parser._action_groups:
        rows = list(_rows(parser, group))
        if rows:
            title = str(group.title).capitalize()
            lines += [f"```{{list-table}} {title}", ":widths: 35 65", "", *rows, "```", ""]
    if parser.epilog:
        lines += ["```text", parser.epilog.rstrip(), "```", ""]
    return "\n".join(lines)


def _rows(parser: argparse.ArgumentParser, group: argparse._ArgumentGroup) -> Iterator[str]:
    """Yield the table row of each argument in a group."""
    formatter = parser._get_formatter()
    for action in group._group_actions:
        if action.help is not argparse.SUPPRESS and not isinstance(action, argparse._HelpAction):
            yield f"* - `{formatter._format_action_invocation(action)}`"
            yield f"  - {formatter._expand_help(action) if action.help else ''}"


def write_page(app: Sphinx) -> None:
    """Write the sections of all commands, in the order of the help."""
    os.environ["COLUMNS"] = COLUMNS
    path = Path(app.srcdir) / FILE
    path.parent.mkdir(exist_ok=True)
    text = "\n".join(section(name, parser) for name, parser in commands().items())
    if not path.exists() or path.read_text() != text:
        path.write_text(text)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.connect("builder-inited", write_page)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
