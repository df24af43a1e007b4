"""A tiny SAM with random weights, shared by the tests of the graph passes and of the compiler."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tvm_ahcq.frontend.sam import SamModel


if "PYTEST_XDIST_WORKER" in os.environ:  # before torch is imported: processes side by side share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def make_tiny_model() -> Callable[[int], SamModel]:
    """Function of a seed: two blocks, one windowed with padding (8 x 8 tokens in windows of 3) and one global."""
    # imported here: most tests need neither torch nor the compiler
    import torch

    from tvm_ahcq.frontend.sam import from_module
    from tvm_ahcq.frontend.vit_t import build_sam_vit_t

    @cache
    def make(seed: int) -> SamModel:
        torch.manual_seed(seed)
        sam = build_sam_vit_t(
            image_size=128, depth=2, embed_dim=48, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
        )
        with torch.no_grad():
            for name, parameter in sam.named_parameters():
                if "rel_pos" in name or "pos_embed" in name:  # upstream starts them at zero, which would hide mistakes
                    parameter.normal_(std=0.3)
        return from_module(sam.requires_grad_(False), "tiny")

    return make


@pytest.fixture(scope="session")
def tiny_model(make_tiny_model) -> SamModel:
    """The tiny model that most tests use."""
    return make_tiny_model(0)
