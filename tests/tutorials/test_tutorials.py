"""Every lesson runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).resolve().parents[2] / "tutorials").glob("[0-9]*.py"))


def test_there_are_lessons() -> None:
    assert LESSONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all lessons: later ones go on from what the first one writes."""
    return tmp_path_factory.mktemp("lessons")


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_from_start_to_end(lesson: Path, folder: Path) -> None:
    before = set(folder.iterdir())
    done = subprocess.run([sys.executable, str(lesson), str(folder)], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert set(folder.iterdir()) > before
