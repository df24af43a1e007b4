"""The training of ``sam2_n``: its parts against the package ``sam2``, and a run of a few steps, killed and resumed."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tvm_ahcq.models.sam2.sam2_n import build_sam2_n
from tvm_ahcq.models.sam2.timing import fit_upstream_predictor
from tvm_ahcq.scenes import generate

pytest.importorskip("sam2")
TRAINING = Path(__file__).parents[2] / "training"


@pytest.fixture(scope="module", autouse=True)
def training_on_path():
    """Modules beside the script are imported as the script does it."""
    sys.path.insert(0, str(TRAINING))
    yield
    sys.path.remove(str(TRAINING))


def part(name: str):
    """Import a part of the training."""
    return importlib.import_module(f"sam2_n.{name}")


@pytest.fixture(scope="module")
def model():
    """The model that training starts from."""
    torch.manual_seed(0)
    return part("start").initial_model().eval()


def run(folder: Path, *arguments: str, workers: int = 2) -> str:
    """Run the script with small settings; return what it printed."""
    small = "--images 2 --clicks 1 --boxes 1 --pool 2 --clip-pool 2 --frames 4 --objects 1 --warmup 1"
    path = [entry for entry in [str(TRAINING), *sys.path] if entry]
    script = str(TRAINING / "train_sam2_n.py")
    program = f"import sys; sys.path[:0] = {path!r}; sys.argv[0] = {script!r}; "
    program += f"import runpy; runpy.run_path({script!r}, run_name='__main__')"
    command = [sys.executable, "-c", program, "--out", str(folder), *small.split(), *arguments]
    command += ["--workers", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_run_is_resumed_where_it_stopped_through_both_stages(tmp_path):
    run(tmp_path, "--pictures", "1", "--clips", "0")
    state = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert state["steps"] == {"pictures": 1, "clips": 0}
    first = load_file(tmp_path / "sam2_n.safetensors")
    run(tmp_path, "--pictures", "1", "--clips", "3")
    after = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert after["steps"] == {"pictures": 1, "clips": 3}
    assert after["seconds"] > state["seconds"] > 0
    weights = load_file(tmp_path / "sam2_n.safetensors")
    assert all(value.dtype == torch.float16 and value.isfinite().all() for value in weights.values())
    assert any(not torch.equal(first[name], weights[name]) for name in weights if name.startswith("memory_encoder"))
    build_sam2_n().load_state_dict(weights)
    assert not list(tmp_path.glob("*.tmp"))
    text = run(tmp_path, "--evaluate", "1", workers=1)
    assert "from a box" in text and "of 22" in text and "clips from a click" in text


def test_all_of_vit_t_but_its_image_encoder_is_taken_over(model):
    from tvm_ahcq.models.sam.variants import EMBEDDED_WEIGHTS

    state = model.state_dict()
    for name, value in load_file(EMBEDDED_WEIGHTS).items():
        if name.startswith("image_encoder.") or "iou_prediction_head.layers.2" in name:
            continue
        name = name.replace("mlp.lin1", "mlp.layers.0").replace("mlp.lin2", "mlp.layers.1")
        torch.testing.assert_close(state[f"sam_{name}"], value.float(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", ["clicks", "boxes"])
def test_decoding_equals_upstreams_predictor(model, kind):
    pictures = part("pictures")
    predictor = fit_upstream_predictor(model)
    scene = generate(3)
    predictor.set_image(scene.image)
    if kind == "clicks":
        coords, labels = torch.tensor([[[40.0, 60.0]], [[200.0, 90.0]]]), [1]
        given = {"point_coords": coords.numpy(), "point_labels": np.ones((2, 1))}
    else:
        coords, labels = torch.tensor([[[40.0, 60.0], [90.0, 99.0]], [[20.0, 90.0], [210.0, 220.0]]]), [2, 3]
        given = {"box": coords.flatten(1).numpy()}
    _, iou, low = predictor.predict(**given, multimask_output=True)
    prompts = pictures.Prompts(coords, torch.tensor(labels).expand(2, -1), torch.zeros(2, 1, 256, 256))
    with torch.no_grad():
        images = part("tracking").normalise(scene.image[None])
        decoded = pictures.decode(model, pictures.encode(model, images), prompts)
    np.testing.assert_allclose(decoded.iou[:, 1:], iou, atol=1e-5)
    np.testing.assert_allclose(decoded.logits[:, 1:].clamp(-32, 32), low, atol=1e-3)


@pytest.mark.parametrize("kind", ["click", "box", "mask"])
def test_tracking_equals_upstreams(model, kind, monkeypatch):
    """Upstream too leaves out the choice by stability while it trains."""
    monkeypatch.setattr(model.sam_mask_decoder, "dynamic_multimask_via_stability", False)
    tracking = part("tracking")
    rng = np.random.default_rng(1)
    pool = tracking.ClipPool(2, first_seed=5)
    batch = tracking.make_clip_batch(pool, rng, kind, clips=1, frames=3, objects=2)
    outputs: dict = {"cond_frame_outputs": {}, "non_cond_frame_outputs": {}}
    with torch.no_grad():
        tracker = tracking.Tracker(model, batch)
        for time in range(3):
            first = time == 0
            points = {"point_coords": batch.coords, "point_labels": batch.labels}
            wanted = model.track_step(
                time,
                first,
                tracker.frame(tracker.features, time),
                tracker.frame(tracker.positions, time),
                tracker.sizes,
                points if first and kind != "mask" else None,
                batch.targets[0][:, None] if first and kind == "mask" else None,
                outputs,
                3,
            )
            outputs["cond_frame_outputs" if first else "non_cond_frame_outputs"][time] = wanted
            tracker.loss(time, true_memory=False)
            result = tracker.outputs["cond_frame_outputs" if first else "non_cond_frame_outputs"][time]
            for name in ("maskmem_features", "obj_ptr"):
                torch.testing.assert_close(result[name], wanted[name], rtol=1e-4, atol=1e-4)


def test_the_memory_attention_starts_nearly_as_the_identity():
    tracking, pictures = part("tracking"), part("pictures")
    model = part("start").initial_model()
    images = tracking.normalise(np.stack([generate(seed).image for seed in range(4)]))
    embedding = pictures.encode(model, images)[-1].detach()
    for convolution in model.image_encoder.neck.convs:  # as trained: close to a layer norm's output
        convolution.conv.weight.data.mul_(1 / embedding.std())
    tracking.start_memory(model, images)
    embedding = pictures.encode(model, images)[-1].detach()
    tokens = embedding.flatten(2).permute(2, 0, 1)
    spread = tokens - tokens.mean((0, 1))
    with torch.no_grad():
        memory = torch.randn(256, 4, 32, generator=torch.Generator().manual_seed(0))
        changed = model.memory_attention(curr=tokens, curr_pos=0 * tokens, memory=memory, memory_pos=0 * memory)
    assert (changed - tokens).square().mean() < 0.5 * spread.square().mean()


def test_orthogonal_keeps_singular_vectors_and_levels_singular_values():
    muon = part("muon")
    matrix = torch.randn(24, 40, generator=torch.Generator().manual_seed(0))
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ muon.orthogonal(matrix) @ v.mT
    assert (inner.diagonal() > 0.5).all() and (inner.diagonal() < 1.3).all()
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3
    torch.testing.assert_close(muon.orthogonal(matrix.T), muon.orthogonal(matrix).T)


def test_a_squashed_picture_keeps_pixels_and_labels_together():
    pictures = part("pictures")
    labels = np.zeros((64, 64), np.uint8)
    labels[20:40, 10:50] = 1
    image = np.repeat(labels[..., None], 3, 2).astype(np.float32)
    pool = pictures.PicturePool.__new__(pictures.PicturePool)
    changed = 0
    for seed in range(20):
        pixels, numbers = pool.frame(np.random.default_rng(seed), image, labels)
        assert pixels.shape == image.shape and numbers.shape == labels.shape
        np.testing.assert_array_equal(pixels[..., 0] > 0.5, numbers == 1)
        changed += not np.array_equal(numbers, labels)
    assert 2 <= changed <= 12
