"""What a frame reads, against upstream's own choice; the agreement of whole videos is tested with the predictor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sam2.modeling.sam2_utils import select_closest_cond_frames

from tvm_ahcq.models.sam2.memory_bank import Limits, MemoryBank, Output, nearest, reach, read
from tvm_ahcq.models.sam2.spec import Sam2Spec


def output(frame: int) -> Output:
    """An output whose arrays hold the number of its frame."""
    filled = np.full((1, 2), frame, np.float32)
    return Output(frame, filled[None, None], filled, filled[:, :1], False, np.full((1, 3, 4), frame % 256, np.uint8))


@pytest.fixture
def spec(video_pair: Any) -> Sam2Spec:
    return video_pair()[1].model


@pytest.mark.parametrize("most", [-1, 2, 3, 5])
def test_the_nearest_conditioning_frames_are_upstreams(most: int) -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        frames = {int(frame): int(frame) for frame in rng.permutation(30)[: rng.integers(1, 8)]}
        frame = int(rng.integers(30))
        chosen, rest = select_closest_cond_frames(frame, frames, most)
        assert nearest(frame, frames, most) == (list(chosen), list(rest))


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_memories_and_pointers_are_those_that_upstream_reads(
    video_pair: Any, spec: Sam2Spec, reverse: bool, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    upstream, _ = video_pair(figures={"memory_temporal_stride_for_eval": stride, "max_cond_frames_in_attn": 2})
    spec = replace(spec, memory_stride=stride, max_conditioning=2)
    bank = MemoryBank(Limits(100, 100))
    for frame in (20, 3, 11):
        bank.add_conditioning(output(frame))
    for frame in {*range(40)} - {20, 3, 11, 17, 25}:
        bank.add(output(frame))
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        upstream.memory_attention, "forward", lambda curr, memory, **_: seen.update(memory=memory) or curr[0]
    )
    monkeypatch.setattr(
        "sam2.modeling.sam2_base.get_1d_sine_pe",
        lambda far, dim: seen.update(far=far) or torch.zeros(len(far), dim),
    )
    width, channels, side = upstream.mem_dim, upstream.hidden_dim, upstream.sam_image_embedding_size

    def stored(each: Output) -> dict[str, Any]:
        shape = (1, width, side, side)
        return {
            "maskmem_features": torch.full(shape, float(each.frame)),
            "maskmem_pos_enc": [torch.zeros(shape)],
            "obj_ptr": torch.full((1, channels), 1000.0 + each.frame),
        }

    outputs = {
        "cond_frame_outputs": {frame: stored(each) for frame, each in bank.conditioning.items()},
        "non_cond_frame_outputs": {frame: stored(each) for frame, each in bank.others.items()},
    }
    for frame in (1, 8, 19, 24, 39):
        seen.clear()
        empty = [torch.zeros(side**2, 1, channels)]
        upstream._prepare_memory_conditioned_features(
            frame, False, empty, empty, [(side, side)], outputs, 40, track_in_reverse=reverse
        )
        reading = read(spec, bank, frame, 40, reverse)
        tokens = seen["memory"][:, 0, 0].tolist()
        spatial = [int(value) for value in tokens[: len(reading.memories) * side**2 : side**2]]
        assert spatial == [each.frame for _, each in reading.memories]
        pointers = [int(value) - 1000 for value in tokens[len(spatial) * side**2 :: channels // width]]
        assert pointers == [each.frame for _, each in reading.pointers]
        np.testing.assert_allclose(
            [far for far, _ in reading.pointers], seen.get("far", torch.zeros(0)).numpy(), rtol=1e-6
        )


def test_arrays_keep_the_executors_type_and_order(spec: Sam2Spec) -> None:
    bank = MemoryBank(Limits(10, 10))
    bank.add_conditioning(output(0))
    for frame in range(1, 4):
        bank.add(output(frame))
    memories, slots, pointers, distances = read(spec, bank, 4, 20, False).arrays()
    assert memories.dtype == np.uint8 and memories.shape == (4, 3, 4)
    np.testing.assert_array_equal(memories[:, 0, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(slots, [0, 4, 5, 6])
    np.testing.assert_array_equal(pointers[:, 0], [0, 3, 2, 1])
    np.testing.assert_allclose(distances, np.array([4, 1, 2, 3]) / 15)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("stride", [1, 2, 3, 5])
def test_no_memory_is_read_from_beyond_the_reach(spec: Sam2Spec, stride: int, reverse: bool) -> None:
    spec = replace(spec, memory_stride=stride)
    bank = MemoryBank(Limits(1000, 1000))
    bank.add_conditioning(output(500))
    for frame in {*range(200)} - {500}:
        bank.add(output(frame))
    furthest = max(
        abs(frame - each.frame)
        for frame in range(80, 120)
        for slot, each in read(spec, bank, frame, 200, reverse).memories
        if slot
    )
    assert furthest <= reach(spec)


def test_the_oldest_go_first_and_conditioning_frames_stay() -> None:
    bank = MemoryBank(Limits(outputs=3, memories=2, conditioning=2))
    for frame in (0, 5, 9):
        bank.add_conditioning(output(frame))
    for frame in (1, 2, 3, 4, 2):
        bank.add(output(frame))
    assert list(bank.conditioning) == [5, 9] and list(bank.others) == [3, 4, 2]
    assert [bank.others[frame].memory is None for frame in (3, 4, 2)] == [True, False, False]
    assert bank.demote(9) and not bank.demote(9)
    assert list(bank.others) == [4, 2, 9] and list(bank.conditioning) == [5]
