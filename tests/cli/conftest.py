"""What the tests of the command line share: the command line as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def run_cli() -> Run:
    """Function that runs ``tvm-ahcq`` with arguments; the package is found as this process finds it."""
    path = [entry for entry in sys.path if entry]
    code = f"import sys; sys.path[:0] = {path!r}; from tvm_ahcq.cli.main import main; status = main(); "
    report = "print('\\n'.join(sorted(sys.modules)), file=open({!r}, 'w')); "

    def run(
        *arguments: object, cwd: Path | None = None, modules_to: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run it; with `modules_to`, write the names of all modules that it imported to that file."""
        listing = "" if modules_to is None else report.format(str(modules_to))
        command = [sys.executable, "-c", code + listing + "sys.exit(status)", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd)

    return run
