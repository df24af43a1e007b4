"""The memory of SAM 2 as Relax functions against upstream's own code."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tvm_ahcq.api import float_session
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.models.float_model import FloatModel

TOLERANCE = 1e-4
"""Of the largest value of an output."""


@pytest.fixture(scope="module")
def session(video_model: FloatModel) -> SessionLike:
    return float_session(video_model)


def _random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_close(ours: np.ndarray, theirs: torch.Tensor) -> None:
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=0, atol=TOLERANCE * float(theirs.abs().max()))


def _upstream_embedding(sam2: Any, frame: torch.Tensor, memories: torch.Tensor, pointers: list[tuple[int, Any]]) -> Any:
    """Embedding of frame 20 of 40 with a conditioning frame 1, and memories of the frames before."""
    side, channels = sam2.sam_image_embedding_size, sam2.mem_dim
    position = sam2.memory_encoder.position_encoding(torch.zeros(1, channels, side, side))
    maps = memories.transpose(1, 2).reshape(-1, 1, channels, side, side)
    entries = [{"maskmem_features": each, "maskmem_pos_enc": [position], "obj_ptr": None} for each in maps]
    condition, *others = entries
    condition["obj_ptr"] = pointers[0][1]
    outputs: dict[str, dict[int, Any]] = {"cond_frame_outputs": {1: condition}, "non_cond_frame_outputs": {}}
    for distance, pointer in pointers[1:]:
        outputs["non_cond_frame_outputs"][20 - distance] = {"obj_ptr": pointer}
    for number, entry in enumerate(others):
        time = 20 - (len(others) - number)
        outputs["non_cond_frame_outputs"].setdefault(time, {}).update(
            {key: value for key, value in entry.items() if key != "obj_ptr"}
        )
    positions = sam2.image_encoder.neck.position_encoding(torch.zeros(1, 1, side, side))
    return sam2._prepare_memory_conditioned_features(
        frame_idx=20,
        is_init_cond_frame=False,
        current_vision_feats=[frame.flatten(2).permute(2, 0, 1)],
        current_vision_pos_embeds=[positions.flatten(2).permute(2, 0, 1)],
        feat_sizes=[(side, side)],
        output_dict=outputs,
        num_frames=40,
    )


@pytest.mark.parametrize(("memories", "pointers"), [(1, 1), (3, 3), (7, 16)])
def test_attention_to_memories_gives_upstreams_embedding(
    sam2: Any, session: SessionLike, memories: int, pointers: int
) -> None:
    side, width, channels = sam2.sam_image_embedding_size, sam2.hidden_dim, sam2.mem_dim
    frame = _random(1, width, side, side, seed=1)
    stored = _random(memories, side * side, channels, seed=2)
    tokens = _random(pointers, 1, width, seed=3)
    distances = [19, *range(1, pointers)]
    expected = _upstream_embedding(sam2, frame, stored, list(zip(distances, tokens, strict=True)))

    slots = np.array([0, *range(8 - memories, 7)])
    (attended,) = session.run("attend_frame", frame.numpy())
    (ours,) = session.run(
        "attend_memory", attended, stored.numpy(), slots, tokens[:, 0].numpy(), np.array(distances) / np.float32(15)
    )
    assert_close(ours, expected)


def test_a_frame_without_pointers_reads_memories_alone(sam2: Any, session: SessionLike) -> None:
    side, width, channels = sam2.sam_image_embedding_size, sam2.hidden_dim, sam2.mem_dim
    frame, stored = _random(1, width, side, side, seed=1), _random(1, side * side, channels, seed=2)
    position = sam2.memory_encoder.position_encoding(torch.zeros(1, channels, side, side)).flatten(2).permute(2, 0, 1)
    expected = sam2.memory_attention(
        curr=[frame.flatten(2).permute(2, 0, 1)],
        curr_pos=[sam2.image_encoder.neck.position_encoding(torch.zeros(1, 1, side, side)).flatten(2).permute(2, 0, 1)],
        memory=stored.transpose(0, 1),
        memory_pos=position + sam2.maskmem_tpos_enc[6],
    )
    (attended,) = session.run("attend_frame", frame.numpy())
    none = np.zeros((0, width), np.float32), np.zeros(0, np.float32)
    (ours,) = session.run("attend_memory", attended, stored.numpy(), np.zeros(1, np.int64), *none)
    assert_close(ours, expected.permute(1, 2, 0).reshape(1, width, side, side))


def test_encoded_memories_are_upstreams(sam2: Any, session: SessionLike) -> None:
    side, width, size = sam2.sam_image_embedding_size, sam2.hidden_dim, sam2.image_size
    frame, logits = _random(1, width, side, side, seed=1), 5 * _random(3, 1, size, size, seed=2)
    score = torch.tensor([[2.0], [-1.0], [0.0]])
    features = frame.expand(3, -1, -1, -1).flatten(2).permute(2, 0, 1)
    expected, _ = sam2._encode_new_memory([features], [(side, side)], logits, score, is_mask_from_pts=False)
    masks = torch.sigmoid(logits) * 20 - 10
    (ours,) = session.run("encode_memory", frame.numpy(), masks.numpy(), score.numpy())
    assert_close(ours, expected.flatten(2).transpose(1, 2))


def test_a_mask_becomes_upstreams_prompt(sam2: Any, session: SessionLike) -> None:
    mask = (_random(2, 1, sam2.image_size, sam2.image_size, seed=1) > 0).float()
    prompt, pointer = session.run("embed_mask", mask.numpy())
    assert_close(prompt, sam2.mask_downsample(mask))
    np.testing.assert_array_equal(pointer, sam2.no_obj_ptr.numpy())
