"""The upstream torch modules, run eagerly: in float32, and with weights and activations in bfloat16."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tvm_ahcq.models.registry import find_model, timing_of

from .task import Task, functions_of, plain


def checkpoint_of(task: Task) -> Path:
    """Return the file with the float weights of a task."""
    checkpoint = find_model(task.model.name)[1].weights if task.checkpoint is None else task.checkpoint
    assert checkpoint is not None, "a task has a checkpoint unless the weights are part of the package"
    return checkpoint


def build(task: Task, eager: bool = False) -> dict[str, nn.Module]:
    """Return the float model's functions with their weights, by name; `eager` for code that cannot be exported too."""
    functions = functions_of(task.model)
    return timing_of(task.model).torch_modules(task.model.name, functions, checkpoint_of(task), eager)


def prepare(task: Task, _precision: str) -> list[Path]:
    """Return the checkpoint: there is nothing to make."""
    return [checkpoint_of(task)]


class TorchPeer:
    """A session over torch modules."""

    def __init__(self, task: Task, dtype: torch.dtype) -> None:
        torch.set_num_threads(task.threads)
        self.model, self._dtype = task.model, dtype
        self._modules = {name: module.to(dtype) for name, module in build(task, eager=True).items()}

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a function by name; return its outputs."""
        given = map(torch.from_numpy, map(plain, inputs))
        tensors = (value.to(self._dtype) if value.is_floating_point() else value for value in given)
        with torch.inference_mode():
            outputs = self._modules[name](*tensors)
        return tuple(value.float().numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,)))


def open_session(task: Task, precision: str) -> TorchPeer:
    """Load the weights."""
    return TorchPeer(task, getattr(torch, precision))
