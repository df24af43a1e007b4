"""Inputs of the tiny model, and its quantization."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.compiler import QuantizedModel
from tvm_ahcq.compiler import quantize as quantize_model
from tvm_ahcq.quantizers.recipe import recipe


@pytest.fixture(scope="session")
def prompts(tiny_model) -> dict[str, tuple[np.ndarray, ...]]:
    """Inputs of each function."""
    rng = np.random.default_rng(0)
    embedding = rng.normal(size=(1, 32, 8, 8)).astype(np.float32)
    coords = rng.uniform(0, 128, (3, 4, 2)).astype(np.float32)
    labels = np.array([[1, 0, 2, 3], [1, 1, 1, -1], [2, 3, -1, -1]], np.float32)
    mask = rng.normal(size=(3, 1, 32, 32)).astype(np.float32)
    return {
        "encode_image": (rng.normal(size=(1, 3, 128, 128)).astype(np.float32),),
        "decode": (embedding, coords, labels),
        "decode_mask": (embedding, coords, labels, mask),
    }


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Three coloured noise pictures."""
    rng = np.random.default_rng(1)
    return [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(3)]


@pytest.fixture(scope="session", params=[4, 8])
def quantized(request, tiny_model, pictures) -> QuantizedModel:
    """The tiny model with all sites calibrated, at 4 and at 8 bits."""
    return quantize_model(tiny_model, pictures, recipe("ahcq", request.param))
