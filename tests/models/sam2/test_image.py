"""Video frames and mask prompts against upstream's preparation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sam2.utils.misc import load_video_frames

from tvm_ahcq.image_files import load_image
from tvm_ahcq.models.sam2.image import prepare_frame, resize_smoothly
from tvm_ahcq.models.sam2.track_frame import round_to_bfloat16


def test_frames_are_prepared_as_upstream_does(video_pair: Any, clip_folder: Path) -> None:
    model = video_pair()[1].model
    expected, height, width = load_video_frames(str(clip_folder), 128, True, compute_device=torch.device("cpu"))
    assert (height, width) == (90, 120)
    for path, theirs in zip(sorted(clip_folder.iterdir()), expected, strict=True):
        np.testing.assert_array_equal(prepare_frame(model, load_image(path))[0], theirs.numpy())


@pytest.mark.parametrize("size", [(90, 120), (37, 501), (480, 854), (128, 128), (1080, 64)])
def test_masks_are_resized_as_torch_does(size: tuple[int, int]) -> None:
    coarse = np.random.default_rng(0).random((size[0] // 9 + 1, size[1] // 9 + 1)) < 0.5
    mask = np.kron(coarse, np.ones((9, 9)))[: size[0], : size[1]].astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(mask)[None, None], (128, 128), mode="bilinear", antialias=True
    )
    np.testing.assert_allclose(resize_smoothly(mask, (128, 128)), expected[0, 0].numpy(), rtol=0, atol=2e-6)


def test_numbers_are_rounded_to_bfloat16_as_torch_does() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 10**5, dtype=np.uint32)
    halves = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)  # ties
    values = np.concatenate([bits, halves]).view(np.float32)
    values = values[np.isfinite(values) & (np.abs(values) < 1e38)]
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    np.testing.assert_array_equal(round_to_bfloat16(values), expected)
