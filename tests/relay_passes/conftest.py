"""A tiny SAM with random weights as Relax functions, its inputs, and its quantization."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.compiler import QuantizedModel
from tvm_ahcq.compiler import quantize as quantize_model
from tvm_ahcq.frontend.sam import SamModel, from_module
from tvm_ahcq.frontend.vit_t import build_sam_vit_t
from tvm_ahcq.quantizers.recipe import recipe


@pytest.fixture(scope="session")
def tiny_model() -> SamModel:
    """Two blocks, one windowed with padding (8 x 8 tokens in windows of 3) and one global."""
    torch.manual_seed(0)
    sam = build_sam_vit_t(
        image_size=128, depth=2, embed_dim=48, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
    )
    with torch.no_grad():
        for name, parameter in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name:  # upstream starts them at zero, which would hide mistakes
                parameter.normal_(std=0.3)
    return from_module(sam.requires_grad_(False), "tiny")


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
