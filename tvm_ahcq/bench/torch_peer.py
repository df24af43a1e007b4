"""The upstream torch modules, run eagerly: in float32, and with weights and activations in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tvm_ahcq.models.sam.export import wrapper
from tvm_ahcq.models.sam.load import build_module, read_state
from tvm_ahcq.models.sam.variants import EMBEDDED_WEIGHTS

from .task import Task


def checkpoint_of(task: Task) -> Path:
    """File with the float weights of a task."""
    return EMBEDDED_WEIGHTS if task.checkpoint is None else task.checkpoint


def build(task: Task) -> dict[str, nn.Module]:
    """The float model's ``"encode_image"`` and ``"decode"``, with their weights."""
    sam = build_module(task.model.name)
    sam.load_state_dict(read_state(checkpoint_of(task), task.model.name), assign=True)
    return {name: wrapper(sam, name).requires_grad_(False) for name in ("encode_image", "decode")}


def prepare(task: Task, _precision: str) -> list[Path]:
    """The checkpoint is all there is."""
    return [checkpoint_of(task)]


class TorchPeer:
    """A session over torch modules."""

    def __init__(self, task: Task, dtype: torch.dtype) -> None:
        torch.set_num_threads(task.threads)
        self.model, self._dtype = task.model, dtype
        self._modules = {name: module.to(dtype) for name, module in build(task).items()}

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a function by name; return its outputs."""
        tensors = (torch.from_numpy(np.asarray(value, np.float32)).to(self._dtype) for value in inputs)
        with torch.inference_mode():
            outputs = self._modules[name](*tensors)
        return tuple(value.float().numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,)))


def open_session(task: Task, precision: str) -> TorchPeer:
    """Load the weights."""
    return TorchPeer(task, getattr(torch, precision))
