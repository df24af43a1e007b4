"""Reference vectors for the quantizer tests."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

# examples are small, but the machine may be busy
settings.register_profile("no_deadline", deadline=None)
settings.load_profile("no_deadline")


@pytest.fixture
def vectors() -> Callable[[str], dict[str, np.ndarray]]:
    """Loads a reference vector file by name, from AHCQ_VECTORS or ../shared/vectors beside the repository."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "vectors"
    folder = Path(os.environ.get("AHCQ_VECTORS", beside))

    def load(name: str) -> dict[str, np.ndarray]:
        path = folder / f"{name}.npz"
        if not path.is_file():
            pytest.skip(f"reference vectors {path} are not here; set AHCQ_VECTORS to their folder")
        with np.load(path) as file:
            return dict(file)

    return load
