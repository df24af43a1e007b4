"""What the tests of SAM 2 share: pictures, a clip, and pairs of upstream's predictor and ours."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from tvm_ahcq.api import float_session
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.load import from_module, memory_figures
from tvm_ahcq.models.sam2.sam2_n import build_sam2_n
from tvm_ahcq.models.sam2.video_predictor import SAM2VideoPredictor

_SCORE_BIAS = "sam_mask_decoder.pred_obj_score_head.layers.2.bias"


@pytest.fixture(scope="session")
def model(sam2: Any) -> FloatModel:
    """The tiny SAM 2 as Relax functions, for pictures."""
    return from_module(sam2, "tiny2")


@pytest.fixture(scope="session")
def pictures() -> list[np.ndarray]:
    """Smooth pictures of several sizes."""
    rng = np.random.default_rng(0)
    found = []
    for height, width in ((90, 140), (160, 75), (128, 128)):
        coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8)).astype(np.float32))
        smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 255)
        found.append(smooth.permute(1, 2, 0).numpy().astype(np.uint8))
    return found


def label_components(mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Stand in for upstream's CUDA extension: components and their areas, 8-connected."""
    labels, areas = np.zeros(mask.shape, np.int32), np.zeros(mask.shape, np.int32)
    for index in np.ndindex(*mask.shape[:2]):
        labels[index], count = ndimage.label(mask[index].numpy(), np.ones((3, 3)))
        sizes = np.bincount(labels[index].ravel(), minlength=count + 1)
        sizes[0] = 0
        areas[index] = sizes[labels[index]]
    return torch.from_numpy(labels), torch.from_numpy(areas)


def clear_around(self: Any, state: dict[str, Any], frame: int, index: int) -> None:
    """The method that upstream calls and does not have, of one object; as its own for all objects."""
    outputs = state["output_dict_per_obj"][index]["non_cond_frame_outputs"]
    distance = self.memory_temporal_stride_for_eval * self.num_maskmem
    for number in range(frame - distance, frame + distance + 1):
        outputs.pop(number, None)


@pytest.fixture(scope="session")
def video_sam2() -> Any:
    """A small SAM 2 whose random weights give masks of objects that come and go."""
    torch.manual_seed(0)
    module = build_sam2_n(
        image_size=128, embed_dim=16, stages=(1, 1, 3, 1), window_spec=(8, 4, 6, 4), global_att_blocks=(4,),
        prompt_dim=32, memory_dim=16, memory_layers=2,
    )  # fmt: skip
    torch.manual_seed(5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.ndim <= 1 or any(part in name for part in ("gamma", "embed", "token")):
                parameter += 0.3 * torch.randn_like(parameter)
        for parameter in module.sam_mask_decoder.output_hypernetworks_mlps.parameters():
            parameter *= 1.5
        for parameter in module.sam_mask_decoder.pred_obj_score_head.parameters():
            parameter *= 4
    return module.requires_grad_(False)


@pytest.fixture(scope="session")
def video_sam2_model(video_sam2: Any) -> FloatModel:
    """The same as Relax functions."""
    return from_module(video_sam2, "tiny2", video=True)


VideoPair = Callable[..., "tuple[Any, SAM2VideoPredictor]"]


@pytest.fixture
def video_pair(video_sam2: Any, video_sam2_model: FloatModel, monkeypatch: pytest.MonkeyPatch) -> VideoPair:
    """Function of options and figures: upstream's predictor and ours with the same weights and settings.

    `present` is added to the object score; the other names are upstream's.
    """
    import sam2.utils.misc
    from sam2.sam2_video_predictor import SAM2VideoPredictor as Upstream

    monkeypatch.setattr(sam2.utils.misc, "get_connected_components", label_components)
    monkeypatch.setattr(Upstream, "_clear_obj_non_cond_mem_around_input", clear_around, raising=False)

    def make(
        present: float = 20.0, figures: dict[str, Any] | None = None, **options: Any
    ) -> tuple[Any, SAM2VideoPredictor]:
        upstream = copy.deepcopy(video_sam2)
        for name, value in (figures or {}).items():
            setattr(upstream, name, value)
        with torch.no_grad():
            upstream.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(present)
        spec = replace(video_sam2_model.spec, **memory_figures(upstream))
        bias = {_SCORE_BIAS: np.full_like(video_sam2_model.params[_SCORE_BIAS], present)}
        model = replace(video_sam2_model, spec=spec, params={**video_sam2_model.params, **bias})
        ours = SAM2VideoPredictor(float_session(model), **options)
        upstream.__class__ = Upstream
        for name, value in vars(ours.options).items():
            setattr(upstream, name, value)
        upstream.sam_mask_decoder.dynamic_multimask_via_stability = ours.options.stability
        # memories are bfloat16, which upstream multiplies with float32 weights under autocast only
        upstream.memory_attention.register_forward_pre_hook(
            lambda _, args, kwargs: (args, kwargs | {"memory": kwargs["memory"].float()}), with_kwargs=True
        )
        return upstream, ours

    return make


@pytest.fixture(scope="session")
def clip() -> list[np.ndarray]:
    """Twenty frames of smooth squares that move to the right."""
    coarse = np.random.default_rng(1).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    rolled = [Image.fromarray(np.roll(coarse, number, 1)) for number in range(20)]
    return [np.asarray(picture.resize((120, 90), Image.Resampling.BILINEAR)) for picture in rolled]


@pytest.fixture(scope="session")
def clip_folder(clip: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same as JPEG files."""
    folder = tmp_path_factory.mktemp("clip")
    for number, frame in enumerate(clip):
        Image.fromarray(frame).save(folder / f"{number:05d}.jpg", quality=95)
    return folder
