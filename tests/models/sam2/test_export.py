"""Relax functions of SAM 2 against upstream's own code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tvm_ahcq.api import float_session
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.export import wrapper

TOLERANCE = 1e-4
"""Of the largest value of an output."""


@pytest.fixture(scope="module")
def session(model: FloatModel) -> SessionLike:
    return float_session(model)


@pytest.fixture(scope="module")
def features(session: SessionLike) -> tuple[np.ndarray, ...]:
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    return session.run("encode_image", image.numpy())


def assert_close(ours: np.ndarray, theirs: torch.Tensor) -> None:
    scale = float(theirs.abs().max())
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=TOLERANCE * scale)


def test_the_encoder_gives_upstreams_features(sam2: Any, session: SessionLike) -> None:
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    high_0, high_1, frame = sam2.forward_image(image)["backbone_fpn"]
    embedding = frame + sam2.no_mem_embed.reshape(1, -1, 1, 1)
    results = session.run("encode_image", image.numpy())
    for ours, theirs in zip(results, (embedding, high_0, high_1, frame), strict=True):
        assert_close(ours, theirs)


def test_other_runtimes_get_upstreams_layers(sam2: Any) -> None:
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    module = wrapper(sam2, "encode_image", upstream=True)
    assert module.patch_embed.kernel_size == (7, 7)
    assert list(module.high_res_0) == [sam2.image_encoder.neck.convs[3], sam2.sam_mask_decoder.conv_s0]
    for layers in (module, wrapper(sam2, "encode_image")):
        _, high_0, high_1, frame = layers(image)
        for ours, theirs in zip((high_0, high_1, frame), sam2.forward_image(image)["backbone_fpn"], strict=True):
            assert_close(ours.numpy(), theirs)


@pytest.mark.parametrize(("batch", "points", "with_mask"), [(1, 2, False), (3, 4, False), (2, 3, True), (1, 0, True)])
def test_the_decoder_gives_upstreams_outputs(
    sam2: Any, session: SessionLike, features: tuple[np.ndarray, ...], batch: int, points: int, with_mask: bool
) -> None:
    generator = torch.Generator().manual_seed(10 * batch + points)
    coords = torch.rand(batch, points, 2, generator=generator) * 128
    labels = torch.randint(-1, 4, (batch, points), generator=generator)
    mask = torch.randn(batch, 1, 32, 32, generator=generator) if with_mask else None
    embedding, high_0, high_1 = (torch.from_numpy(np.array(values)) for values in features[:3])

    encoder, decoder = sam2.sam_prompt_encoder, sam2.sam_mask_decoder
    sparse = encoder._embed_points(coords, labels, pad=False)
    _, dense = encoder(None, torch.zeros(batch, 4) if mask is None else None, mask)
    masks, iou, tokens, score = decoder.predict_masks(
        embedding, encoder.get_dense_pe(), sparse, dense, batch > 1, [high_0, high_1]
    )
    expected = masks, iou, torch.where(score[..., None] > 0, sam2.obj_ptr_proj(tokens), sam2.no_obj_ptr), score

    inputs = [*features[:3], coords.numpy(), labels.float().numpy()]
    if mask is None:
        results = session.run("decode", *inputs)
    else:
        results = session.run("decode_mask", *inputs, mask.numpy())
    for ours, theirs in zip(results, expected, strict=True):
        assert_close(ours, theirs)


def test_a_bundle_would_hold_the_small_position_table(model: FloatModel) -> None:
    assert model.params["image_encoder.trunk.pos_embed"].shape == (1, 16, 7, 7)
