"""``from_sam`` and ``from_module``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import tvm_ahcq
from tvm_ahcq.errors import CheckpointError, UnsupportedModelError
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.load import build_module, from_module, from_sam
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t


def test_model_describes_itself(sam: Any, model: FloatModel) -> None:
    spec = model.spec
    assert (spec.image_size, spec.grid, spec.prompt_dim, spec.mask_threshold) == (128, 8, 32, 0.0)
    assert spec.pixel_mean == (123.675, 116.28, 103.53)
    assert spec.pixel_std == (58.395, 57.12, 57.375)


def test_weights_are_shared_not_copied(sam: Any, model: FloatModel) -> None:
    name = "image_encoder.blocks.0.attn.qkv.weight"
    assert model.params[name].dtype == np.float32
    assert model.params[name].ctypes.data == sam.state_dict()[name].data_ptr()


def test_from_sam_takes_the_weights_of_the_checkpoint(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {name: value.contiguous() for name, value in build_sam_vit_t().state_dict().items()}
    save_file(state, tmp_path / "weights.safetensors")
    model = tvm_ahcq.from_sam("vit_t", checkpoint=tmp_path / "weights.safetensors")
    assert (model.name, model.spec.image_size, model.spec.grid, model.spec.prompt_dim) == ("vit_t", 256, 16, 128)
    for name, value in model.params.items():
        np.testing.assert_array_equal(value, state[name].numpy())


def test_vit_t_comes_with_weights() -> None:
    model = from_sam()
    assert model.name == "vit_t"
    assert float(np.abs(model.params["image_encoder.blocks.0.attn.rel_pos_h"]).max()) > 0  # zero when untrained


@pytest.mark.parametrize("model_type", ["vit_b", "vit_l", "vit_h"])
def test_upstream_types_ask_for_a_checkpoint_and_say_where_it_is(model_type: str) -> None:
    with pytest.raises(CheckpointError, match=rf"dl\.fbaipublicfiles\.com.*sam_{model_type}"):
        from_sam(model_type)


def test_unknown_type_lists_the_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match="vit_t, vit_b, vit_l, vit_h"):
        from_sam("vit_x")


def test_a_patch_size_other_than_16_is_refused() -> None:
    sam = build_sam_vit_t(
        image_size=64,
        patch_size=8,
        depth=1,
        embed_dim=16,
        num_heads=1,
        global_attn_indexes=(),
        window_size=4,
        prompt_dim=32,
    )
    with pytest.raises(UnsupportedModelError, match="16 times"):
        from_module(sam, "odd")


def test_build_module_takes_no_memory_for_weights() -> None:
    assert all(parameter.is_meta for parameter in build_module("vit_h").parameters())
