"""Pages, README and CONTRIBUTING name files, modules, commands and operators that exist."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import warnings
from functools import cache
from pathlib import Path

import pytest
from tvm.ir import Op

from tvm_ahcq import ir as ahcq
from tvm_ahcq.cli import main
from tvm_ahcq.ir.register import PREFIX

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SITE = sorted([*DOCS.glob("*.md"), *DOCS.glob("[a-z]*/*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
SITE = [page for page in SITE if "generated" not in page.parts]
PAGES = SITE + sorted(
    [*(ROOT / "benchmarks").rglob("*.md"), *(ROOT / "codegen").rglob("*.md"), *ROOT.glob("tutorials/*/*.md")]
)
TOP = ("benchmarks", "codegen", "docs", "relay_passes", "tests", "training", "tutorials", "tvm_ahcq", ".ci")
CODE = ("py", "cc", "h", "sv", "v", "yaml", "toml", "txt")
SUFFIXES = "py|md|sv|v|cc|h|yaml|yml|svg|png|json|toml|vlt"
COMMON_ABBREVIATIONS = {
    *(
        "AMD",
        "API",
        "CI",
        "COCO",
        "CPU",
        "FPGA",
        "GB",
        "GMAC",
        "HOST",
        "HTML",
        "JSON",
        "MB",
        "MLP",
        "ONNX",
        "PORT",
        "RPC",
    ),
    *(
        "CONFIG",
        "DIR",
        "IMAGE",
        "OUT",
        "TVM",
        "UIO",
        "VTA",
        "LICENSE",
        "CONTRIBUTING",
        "DSP",
        "PNG",
        "GELU",
        "IOU",
        "SPEC",
    ),
}


def name_of(page: Path) -> str:
    """Path of a page from the root of the repository."""
    return str(page.relative_to(ROOT))


def quoted(text: str) -> set[str]:
    """Inline code of a page."""
    return set(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text))


def paths_in(text: str) -> set[str]:
    """Paths from the root of the repository that a page names: files anywhere, folders as inline code."""
    files = set(re.findall(rf"(?<![\w./:<-])(?:{'|'.join(TOP)})/[\w./-]+\.(?:{SUFFIXES})\b", text))
    folders = {path for path in quoted(text) if re.fullmatch(rf"(?:{'|'.join(TOP)})(?:/[\w.-]+)+/?", path)}
    return {path for path in files | folders if not re.search(r"/[A-Z]+/|/[A-Z]+$", path)}  # placeholders


def modules_in(text: str) -> set[str]:
    """Dotted names of the package that a page mentions."""
    return set(re.findall(r"\btvm_ahcq(?:\.[A-Za-z_]\w*)+", text))


@cache
def identifiers() -> set[str]:
    """Identifiers of all sources, but for those that are deprecated."""
    sources = [path for top in TOP for path in (ROOT / top).rglob("*") if path.suffix[1:] in CODE]
    texts = [path.read_text(errors="ignore") for path in sources if path.name != "_deprecated.py"]
    return {
        name for text in [*texts, (ROOT / "pyproject.toml").read_text()] for name in re.findall(r"[A-Za-z_]\w*", text)
    }


def resolves(name: str) -> bool:
    """True if `name` is a module, or an attribute path in one; deprecated names are not."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                found = importlib.import_module(".".join(parts[:end]))
                for part in parts[end:]:
                    found = getattr(found, part)
        except (ImportError, AttributeError):
            continue
        return not any("tvm_ahcq" in str(warning.message) for warning in caught)
    return False


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_exist(page: Path) -> None:
    missing = sorted(path for path in paths_in(page.read_text()) if not (ROOT / path).exists())
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_dotted_names_resolve(page: Path) -> None:
    text = page.read_text().replace("libtvm_ahcq.so", "")
    assert not sorted(name for name in modules_in(text) if not resolves(name))


@pytest.mark.parametrize("page", SITE, ids=name_of)
def test_identifiers_occur_in_the_code(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    names = {
        name.rstrip("()") for name in quoted(text) if re.fullmatch(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*(?:\(\))?", name)
    }
    files = {name for name in names if re.search(rf"\.(?:{SUFFIXES})$", name)}
    assert not sorted(name for name in names - files if not set(name.split(".")) <= identifiers())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_exist(page: Path) -> None:
    targets = {target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())}
    local = {target for target in targets if target and "://" not in target}
    assert not sorted(target for target in local if not (page.parent / target).exists())


def test_command_page_has_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS / "_ext"))
    pytest.importorskip("sphinx")
    commands = importlib.import_module("command_pages").commands()
    assert len(commands) == len(main.COMMANDS)
    section = sys.modules["command_pages"].section
    for name, parser in commands.items():
        text = section(name, parser)
        assert text.startswith(f"## {name}\n")
        assert all(
            f"`{flag}" in text or f", {flag}" in text
            for a in parser._actions
            for flag in a.option_strings[-1:]
            if flag != "--help"
        )


def test_dialect_page_has_every_operator_and_attribute() -> None:
    sections = dict(
        re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", (DOCS / "concepts" / "dialect.md").read_text(), re.M | re.S)
    )
    registered = {name.removeprefix(PREFIX) for name in Op.list_op_names() if name.startswith(PREFIX)}
    assert set(sections) == registered
    for name, text in sections.items():
        parameters = inspect.signature(getattr(ahcq, name)).parameters.values()
        named = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
        assert not {attribute for attribute in named if f"`{attribute}" not in text}, name


def test_glossary_explains_the_abbreviations_of_the_readme() -> None:
    text = re.sub(r"^```.*?^```", "", (ROOT / "README.md").read_text(), flags=re.M | re.S)
    used = set(re.findall(r"\b[A-Z]{3,}\b", re.sub(r"`[^`]*`", "", text)))
    explained = set(re.findall(r"\b[A-Z]{3,}\b", (DOCS / "glossary.md").read_text()))
    assert not used - explained - COMMON_ABBREVIATIONS
