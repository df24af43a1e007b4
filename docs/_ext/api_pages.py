"""One API page a folder of the package, written before each build.

Docstrings may hold tables in Markdown, and name sections of the quantizer page by path. A cross-reference to a name of
the package that does not exist is a warning.
"""

from __future__ import annotations

import pkgutil
import re
from collections.abc import Iterator
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PythonDomain
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

PACKAGE = "tvm_ahcq"
FOLDER = Path("generated", "api")

SECTION = re.compile(r"docs/quantizers\.md#([\w-]+)")
"""Reference to a section of the page on quantizers."""

logger = logging.getLogger(__name__)


class Domain(PythonDomain):
    """Python domain in which a short name that several modules define stays without a link."""

    def find_obj(
        self, env: BuildEnvironment, modname: str, classname: str, name: str, type: str, searchmode: int = 0
    ) -> list[tuple[str, Any]]:
        """Return the objects that `name` may refer to."""
        matches = super().find_obj(env, modname, classname, name, type, searchmode)
        return matches if searchmode == 0 or len(matches) == 1 else []


def packages(name: str = PACKAGE) -> Iterator[tuple[str, list[str]]]:
    """Yield each package at or below `name`, with the full names of its modules."""
    children = sorted(pkgutil.iter_modules(import_module(name).__path__, f"{name}."), key=lambda child: child.name)
    yield name, [child.name for child in children if not child.ispkg]
    for child in children:
        if child.ispkg:
            yield from packages(child.name)


def page(package: str, modules: list[str]) -> str:
    """Return the reStructuredText of the page of `package`."""
    lines = [package, "=" * len(package), "", f".. automodule:: {package}", "   :ignore-module-all:", ""]
    for module in modules:
        title = module.removeprefix(f"{package}.")
        lines += [title, "-" * len(title), "", f".. automodule:: {module}", ""]
    return "\n".join(lines)


def write_pages(app: Sphinx) -> None:
    """Write the pages that changed, and remove those of packages that are gone."""
    folder = Path(app.srcdir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    pages = {folder / f"{package}.rst": page(package, modules) for package, modules in packages()}
    for path in set(folder.glob("*.rst")) - set(pages):
        path.unlink()
    for path, text in pages.items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def convert_docstring(app: Sphinx, kind: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Convert what docstrings have of Markdown: tables, and references to sections of the quantizer page."""
    converted: list[str] = []
    for line, following in pairwise([*lines, ""]):
        line = SECTION.sub(r":ref:`quantizers-\1`", line)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if following.startswith("|---"):
            converted += [".. list-table::", "   :header-rows: 1", ""]
        if not line.startswith("|"):
            converted.append(line)
        elif not line.startswith("|---"):
            converted += [f"   {'  -' if column else '* -'} {cell}" for column, cell in enumerate(cells)]
    if kind in ("attribute", "data"):
        converted = ["..", "", *converted]  # napoleon takes the start of a first line with a colon for a type
    lines[:] = converted


def resolve_attribute(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contents: nodes.TextElement
) -> nodes.reference | None:
    """Link a reference to an attribute of a class to the class; warn of a name of this package that does not exist."""
    target = node.get("reftarget", "")
    by_role = "refwarn" in node  # types of signatures name private aliases and type variables too
    if not by_role or not target.startswith(f"{PACKAGE}."):
        return None
    parent, _, name = target.rpartition(".")
    module, _, cls = parent.rpartition(".")
    try:
        if name in getattr(import_module(module), cls).__annotations__:
            domain = env.domains.python_domain
            return domain.resolve_xref(env, node["refdoc"], app.builder, "class", parent, node, contents)
    except (ImportError, AttributeError):
        pass
    logger.warning("no such name: %s", target, location=node, type="ref", subtype="unknown")
    return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the extension."""
    app.setup_extension("sphinx.ext.autodoc")
    app.add_domain(Domain, override=True)
    app.connect("builder-inited", write_pages)
    app.connect("autodoc-process-docstring", convert_docstring)
    app.connect("missing-reference", resolve_attribute)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
