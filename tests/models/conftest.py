"""Small SAMs with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t


def build_tiny_sam(window_size: int) -> Any:
    """Upstream classes with an 8 x 8 embedding, which windows of 3 and 5 do not divide; the last block is global."""
    torch.manual_seed(window_size)
    sam = build_sam_vit_t(
        image_size=128,
        depth=2,
        embed_dim=32,
        num_heads=2,
        global_attn_indexes=(1,),
        window_size=window_size,
        prompt_dim=32,
    )
    with torch.no_grad():
        for parameter in sam.parameters():  # upstream starts position tables at zero, which would hide mistakes
            parameter.normal_(std=0.2)
    return sam.requires_grad_(False)


@pytest.fixture(scope="session")
def make_sam() -> Callable[[int], Any]:
    """Function of a window size."""
    return build_tiny_sam


@pytest.fixture(scope="session")
def sam() -> Any:
    """Windows of 3 tokens: padded 8 -> 9."""
    return build_tiny_sam(3)


@pytest.fixture(scope="session")
def model(sam: Any) -> FloatModel:
    """The same model in Relax."""
    return from_module(sam, "tiny")
