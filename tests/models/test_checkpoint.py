"""What ``read_state`` reads, and how it refuses the rest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tvm_ahcq.errors import CheckpointError
from tvm_ahcq.models.sam.load import build_module, read_state


def state_of(model_type: str) -> dict[str, torch.Tensor]:
    """A state dict of the right shapes in which every tensor is one stored number, so that files stay small."""
    shapes = {name: value.shape for name, value in build_module(model_type).state_dict().items()}
    return {name: torch.full((1,), 0.5).expand(shape) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def vit_t_state() -> dict[str, torch.Tensor]:
    return state_of("vit_t")


@pytest.fixture(scope="module")
def vit_t_file(vit_t_state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint") / "vit_t.pth"
    torch.save(vit_t_state, path)
    return path


def same(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_reads_what_torch_saved(vit_t_file: Path, vit_t_state: dict) -> None:
    assert same(read_state(vit_t_file, "vit_t"), vit_t_state)


def test_reads_the_layout_of_old_torch_versions(tmp_path: Path, vit_t_state: dict) -> None:
    torch.save(vit_t_state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(read_state(tmp_path / "old.pth", "vit_t"), vit_t_state)


def test_reads_a_state_dict_under_the_key_model(tmp_path: Path, vit_t_state: dict) -> None:
    torch.save({"model": vit_t_state, "epoch": 3}, tmp_path / "trained.pth")
    assert same(read_state(tmp_path / "trained.pth", "vit_t"), vit_t_state)


def test_reads_safetensors(tmp_path: Path, vit_t_state: dict) -> None:
    save_file({name: value.contiguous() for name, value in vit_t_state.items()}, tmp_path / "vit_t.safetensors")
    assert same(read_state(str(tmp_path / "vit_t.safetensors"), "vit_t"), vit_t_state)


def test_half_precision_becomes_float32(tmp_path: Path, vit_t_state: dict) -> None:
    torch.save({name: value.half() for name, value in vit_t_state.items()}, tmp_path / "half.pth")
    assert all(value.dtype == torch.float32 for value in read_state(tmp_path / "half.pth", "vit_t").values())


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        read_state(tmp_path / "absent.pth", "vit_t")


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is a directory"):
        read_state(tmp_path, "vit_t")


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, 0.99])
def test_truncated_file(tmp_path: Path, vit_t_file: Path, kept: float) -> None:
    whole = vit_t_file.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match=r"cut\.pth: cannot be read"):
        read_state(tmp_path / "cut.pth", "vit_t")


@pytest.mark.parametrize("kept", [0, 4, 0.9])
def test_truncated_safetensors(tmp_path: Path, vit_t_state: dict, kept: float) -> None:
    save_file({name: value.contiguous() for name, value in vit_t_state.items()}, tmp_path / "whole.safetensors")
    whole = (tmp_path / "whole.safetensors").read_bytes()
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole[: kept if isinstance(kept, int) else int(len(whole) * kept)])
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(cut, "vit_t")


def test_a_web_page_saved_under_the_name_of_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "page.pth").write_text("<!DOCTYPE html><html><body>404</body></html>\n" * 50)
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_state(tmp_path / "page.pth", "vit_t")


class Malicious:
    """Would create a file when unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_code_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"weight": Malicious(tmp_path / "hacked")}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"pickled object \w+\.mkdir.*weights_only=True"):
        read_state(tmp_path / "evil.pth", "vit_t")
    assert not (tmp_path / "hacked").exists()


def test_a_whole_pickled_module_is_refused_with_advice(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"state_dict\(\)"):
        read_state(tmp_path / "module.pth", "vit_t")


@pytest.mark.parametrize("content", [{}, [1, 2], {"optimizer": {"lr": 1.0}}, torch.zeros(3)])
def test_other_contents_are_described(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="expected a state dict"):
        read_state(tmp_path / "other.pth", "vit_t")


def test_checkpoint_of_another_type_is_named(tmp_path: Path) -> None:
    torch.save(state_of("vit_l"), tmp_path / "l.pth")
    with pytest.raises(CheckpointError) as caught:
        read_state(tmp_path / "l.pth", "vit_b")
    message = str(caught.value)
    assert 'this is a vit_l checkpoint; pass model_type="vit_l"' in message
    assert "image_encoder.pos_embed (1, 64, 64, 1024) instead of (1, 64, 64, 768)" in message
    assert "unexpected: image_encoder.blocks.12." in message and ", ..." in message


def test_checkpoint_of_no_known_type_lists_what_differs(tmp_path: Path, vit_t_state: dict) -> None:
    changed = dict(vit_t_state)
    del changed["mask_decoder.iou_token.weight"]
    changed["extra"] = torch.zeros(2)
    torch.save(changed, tmp_path / "changed.pth")
    with pytest.raises(CheckpointError) as caught:
        read_state(tmp_path / "changed.pth", "vit_t")
    message = str(caught.value)
    assert "fits no other SAM model type" in message
    assert "1 missing: mask_decoder.iou_token.weight" in message and "1 unexpected: extra" in message


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(tmp_path: Path, vit_t_state: dict, value: float) -> None:
    damaged = dict(vit_t_state)
    damaged["image_encoder.blocks.2.mlp.lin1.bias"] = damaged["image_encoder.blocks.2.mlp.lin1.bias"].clone()
    damaged["image_encoder.blocks.2.mlp.lin1.bias"][5] = value
    torch.save(damaged, tmp_path / "damaged.pth")
    with pytest.raises(CheckpointError, match=r"blocks\.2\.mlp\.lin1\.bias holds NaN or infinite"):
        read_state(tmp_path / "damaged.pth", "vit_t")
