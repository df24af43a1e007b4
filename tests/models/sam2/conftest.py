"""A tiny SAM 2 with random weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.load import from_module
from tvm_ahcq.models.sam2.sam2_n import build_sam2_n


@pytest.fixture(scope="session")
def sam2() -> Any:
    """Four stages at 128 x 128: windows with and without padding, a global block, pooled queries."""
    torch.manual_seed(0)
    module = build_sam2_n(
        image_size=128, embed_dim=16, stages=(1, 1, 3, 1), window_spec=(8, 4, 6, 4), global_att_blocks=(4,),
        prompt_dim=32, memory_dim=16, memory_layers=2,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return module.requires_grad_(False)


@pytest.fixture(scope="session")
def model(sam2: Any) -> FloatModel:
    """The same as Relax functions."""
    return from_module(sam2, "tiny2")


@pytest.fixture(scope="session")
def video_model(sam2: Any) -> FloatModel:
    """The same with the functions of the memory."""
    return from_module(sam2, "tiny2", video=True)


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Smooth pictures of several sizes."""
    rng = np.random.default_rng(0)
    found = []
    for height, width in ((90, 140), (160, 75), (128, 128)):
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8)).astype(np.float32))
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 255)
        found.append(smooth.permute(1, 2, 0).numpy().astype(np.uint8))
    return found
