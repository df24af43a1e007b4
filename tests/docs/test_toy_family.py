"""The family of the page "Add a model" goes through quantize, compile, save, load and verify."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.models import registry

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "how-to"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The page's module; its family is registered for one test."""
    registry.families()  # they register once, when they are imported: not into the copy
    monkeypatch.setattr(registry, "_FAMILIES", dict(registry._FAMILIES))
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.delitem(sys.modules, "toy_family", raising=False)
    return importlib.import_module("toy_family")


def test_toy_family_goes_through_the_compiler(toy: ModuleType, tmp_path: Path) -> None:
    family, variant = registry.find_model("tiles_s")
    assert family is toy.TILES_FAMILY
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(4)]
    quantized = ahcq.quantize(family.load(variant.name, None), pictures)
    assert quantized.sites == (2, 2)
    ahcq.compile(quantized).save(tmp_path / "tiles.ahcq")
    session = ahcq.load(tmp_path / "tiles.ahcq")
    assert all(check.passed for check in session.verify())
    sample = toy.prepare(session.model, pictures[0])
    (embedding,) = session.run("embed", sample)
    (scores,) = session.run("score", np.repeat(embedding, 3, 0), np.zeros((3, toy.TILES), np.float32))
    assert scores.shape == (3, toy.TILES)
    (simulated,) = quantized.fake_quant_session().run("embed", sample)
    np.testing.assert_allclose(embedding, simulated, atol=1e-5)
