"""The training script: a run of a few steps, killed and resumed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file

from tvm_ahcq.models.sam.vit_t import build_sam_vit_t

SCRIPT = Path(__file__).parents[2] / "training" / "train_vit_t.py"


def train(folder: Path, steps: int) -> None:
    """Run the script."""
    small = ["--images", "1", "--prompts", "2", "--pool", "2", "--warmup", "1", "--threads", "1"]
    path = [entry for entry in sys.path if entry]
    program = f"import sys; sys.path[:0] = {path!r}; sys.argv[0] = {str(SCRIPT)!r}; "
    program += f"import runpy; runpy.run_path({str(SCRIPT)!r}, run_name='__main__')"
    command = [sys.executable, "-c", program, "--steps", str(steps), "--out", str(folder), *small]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_run_is_resumed_where_it_stopped_and_leaves_weights_of_the_model(tmp_path):
    train(tmp_path, steps=2)
    assert torch.load(tmp_path / "checkpoint.pt", weights_only=True)["step"] == 2
    first = load_file(tmp_path / "vit_t.safetensors")
    train(tmp_path, steps=3)
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["step"] == 3
    weights = load_file(tmp_path / "vit_t.safetensors")
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in weights.values())
    assert any(not torch.equal(first[name], weights[name]) for name in weights)
    build_sam_vit_t().load_state_dict(weights)


def test_the_embedded_model_is_small_and_has_every_part():
    sam = build_sam_vit_t()
    assert sum(parameter.numel() for parameter in sam.parameters()) <= 6_000_000
    windows = [block.window_size for block in sam.image_encoder.blocks]
    assert 0 in windows and max(windows) > 0
    assert all(block.attn.use_rel_pos for block in sam.image_encoder.blocks)
    assert np.isclose(sam.image_encoder.blocks[0].attn.scale, 32**-0.5)
