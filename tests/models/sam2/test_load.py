"""``from_sam2`` and the checkpoints that it takes."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import tvm_ahcq
from tvm_ahcq.errors import CheckpointError, UnsupportedModelError
from tvm_ahcq.models.registry import find_family, find_model
from tvm_ahcq.models.sam2.load import build_module, from_module, read_state

NAMES = [variant.name for variant in find_family("sam2").variants]


@pytest.mark.parametrize(("name", "blocks", "width"), [("t", 12, 96), ("s", 16, 96), ("b+", 24, 112), ("l", 48, 144)])
@pytest.mark.parametrize("version", ["sam2.1", "sam2"])
def test_every_size_is_upstreams(version: str, name: str, blocks: int, width: int) -> None:
    module = build_module(f"{version}_hiera_{name}")
    trunk = module.image_encoder.trunk
    assert (len(trunk.blocks), trunk.patch_embed.proj.out_channels, module.image_size) == (blocks, width, 1024)
    assert ("no_obj_embed_spatial" in module.state_dict()) == (version == "sam2.1")


def test_official_layout_and_safetensors_give_the_same_state(tmp_path: Path) -> None:
    state = {name: torch.full(value.shape, 0.25) for name, value in build_module("sam2.1_hiera_t").state_dict().items()}
    torch.save({"model": state}, tmp_path / "official.pt")
    save_file(state, tmp_path / "same.safetensors")
    first, second = (read_state(tmp_path / name, "sam2.1_hiera_t") for name in ("official.pt", "same.safetensors"))
    assert set(first) == set(second) == set(state)
    assert all(torch.equal(first[name], second[name]) for name in state)
    with pytest.raises(CheckpointError, match=r"this is a sam2\.1_hiera_t checkpoint"):
        read_state(tmp_path / "official.pt", "sam2.1_hiera_s")


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_checkpoint_names_where_it_is(name: str) -> None:
    if find_model(name)[1].embedded:
        pytest.skip("comes with weights")
    with pytest.raises(CheckpointError, match=r"needs a checkpoint.*dl\.fbaipublicfiles\.com/segment_anything_2/"):
        tvm_ahcq.from_sam2(name)


def test_pickled_objects_are_refused(tmp_path: Path) -> None:
    torch.save({"model": {"weight": Path("x")}}, tmp_path / "objects.pt")
    with pytest.raises(CheckpointError, match="could run code"):
        tvm_ahcq.from_sam2("sam2.1_hiera_t", tmp_path / "objects.pt")


def test_unknown_types_list_the_known_ones() -> None:
    with pytest.raises(UnsupportedModelError, match=r"sam2\.1_hiera_t, sam2\.1_hiera_s"):
        tvm_ahcq.from_sam2("sam2.1_hiera_x")


def test_a_model_without_high_resolution_features_is_refused(sam2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam2, "use_high_res_features_in_sam", False)
    with pytest.raises(UnsupportedModelError, match="high-resolution features"):
        from_module(sam2, "other")


@pytest.mark.parametrize(("given", "asked"), [("vit_b", "sam2.1_hiera_t"), ("sam2.1_hiera_t", "vit_b")])
def test_a_checkpoint_of_the_other_family_is_told_by_its_family(tmp_path: Path, given: str, asked: str) -> None:
    (family, _), (other, _) = find_model(asked), find_model(given)
    build = import_module(f"tvm_ahcq.models.{other.name}.load").build_module
    torch.save({name: torch.zeros(value.shape) for name, value in build(given).state_dict().items()}, tmp_path / "f.pt")
    expected = rf"this is a checkpoint of {other.title}, not of {family.title}; pass its model type .*{given}"
    with pytest.raises(CheckpointError, match=expected):
        family.load(asked, tmp_path / "f.pt")
