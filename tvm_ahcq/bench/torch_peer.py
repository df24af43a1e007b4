"""The upstream torch modules, run eagerly: in float32, and with weights and activations in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tvm_ahcq.models.checkpoint import load_checkpoint
from tvm_ahcq.models.sam.export import wrapper
from tvm_ahcq.models.sam.load import EMBEDDED_WEIGHTS, build_module
from tvm_ahcq.runtime.manifest import ModelSpec

from .task import Task


def checkpoint_of(task: Task) -> Path:
    """File with the float weights of a task."""
    return EMBEDDED_WEIGHTS if task.checkpoint is None else task.checkpoint


def build(task: Task) -> dict[str, nn.Module]:
    """The float model's ``"encode_image"`` and ``"decode"``, with their weights."""
    sam = build_module(task.model.name)
    sam.load_state_dict(load_checkpoint(checkpoint_of(task), task.model.name), assign=True)
    return {name: wrapper(sam, name).eval().requires_grad_(False) for name in ("encode_image", "decode")}


def prepare(task: Task, _precision: str) -> list[Path]:
    """The checkpoint is all there is."""
    return [checkpoint_of(task)]


class TorchPeer:
    """A session over torch modules."""

    def __init__(self, task: Task, dtype: torch.dtype) -> None:
        torch.set_num_threads(task.threads)
        self._model, self._dtype = task.model, dtype
        modules = build(task)
        self._encode, self._decode = modules["encode_image"].to(dtype), modules["decode"].to(dtype)

    @property
    def model(self) -> ModelSpec:
        """Figures of the model."""
        return self._model

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Image to embedding."""
        with torch.inference_mode():
            return self._encode(torch.from_numpy(image).to(self._dtype)).float().numpy()

    def decode(
        self,
        embedding: np.ndarray,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts without a mask to masks and scores."""
        arrays = (np.asarray(array, np.float32) for array in (embedding, point_coords, point_labels))
        with torch.inference_mode():
            masks, iou = self._decode(*(torch.from_numpy(array).to(self._dtype) for array in arrays))
            return masks.float().numpy(), iou.float().numpy()


def open_session(task: Task, precision: str) -> TorchPeer:
    """Load the weights."""
    return TorchPeer(task, getattr(torch, precision))
