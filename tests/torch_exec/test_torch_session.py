"""A predictor on ``TorchSession`` against upstream's predictor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.load import from_module
from tvm_ahcq.models.sam.predictor import SamPredictor
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t
from tvm_ahcq.torch_exec.torch_session import TorchSession


@pytest.fixture(scope="module")
def sam() -> Any:
    torch.manual_seed(0)
    built = build_sam_vit_t(
        image_size=64, depth=2, embed_dim=16, num_heads=2, global_attn_indexes=(1,), window_size=3, prompt_dim=32
    )
    return built.requires_grad_(False)


@pytest.fixture(scope="module")
def model(sam: Any) -> FloatModel:
    return from_module(sam, "tiny")


@pytest.fixture(scope="module")
def session(model: FloatModel) -> TorchSession:
    return TorchSession(model.spec, model.module, model.params)


@pytest.mark.parametrize(
    "prompt",
    [
        {"point_coords": np.array([[30.0, 20.0]]), "point_labels": np.array([1])},
        {"box": np.array([5.0, 6.0, 60.0, 40.0])},
        {
            "point_coords": np.array([[30.0, 20.0], [9.0, 9.0]]),
            "point_labels": np.array([1, 0]),
            "box": np.array([5.0, 6.0, 60.0, 40.0]),
            "multimask_output": False,
        },
        {"point_coords": np.array([[30.0, 20.0]]), "point_labels": np.array([1]), "mask": True},
    ],
    ids=["point", "box", "points and box", "point and mask"],
)
def test_predictor_equals_upstream(sam: Any, session: TorchSession, prompt: dict) -> None:
    from segment_anything import SamPredictor as Upstream

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (50, 80, 3), dtype=np.uint8)
    given = {key: value for key, value in prompt.items() if key != "mask"}
    if "mask" in prompt:
        given["mask_input"] = rng.normal(size=(1, 16, 16)).astype(np.float32)
    results = []
    for predictor in (SamPredictor(session), Upstream(sam)):
        predictor.set_image(image)
        results.append(predictor.predict(**given, return_logits=True))
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_float64_inputs_are_taken_as_float32(session: TorchSession) -> None:
    embedding = SamFunctions(session).encode(np.zeros((1, 3, 64, 64)))
    masks, iou = SamFunctions(session).decode(embedding.astype(np.float64), np.ones((2, 1, 2)), np.ones((2, 1), int))
    assert (masks.dtype, masks.shape) == (np.float32, (2, 4, 16, 16))
    assert (iou.dtype, iou.shape) == (np.float32, (2, 4))
