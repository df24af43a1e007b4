"""Every lesson runs as it stands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LESSONS = sorted((Path(__file__).resolve().parents[2] / "tutorials").glob("[0-9]*.py"))


def test_there_are_lessons() -> None:
    assert LESSONS


@pytest.mark.slow
@pytest.mark.parametrize("lesson", LESSONS, ids=lambda path: path.stem)
def test_lesson_runs_from_start_to_end(lesson: Path, tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, str(lesson), str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert any(tmp_path.iterdir())
