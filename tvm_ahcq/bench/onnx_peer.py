"""ONNX Runtime: the exported float model, and its weights and activations in int8 by dynamic quantization."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.models.description import ModelSpec

from .task import Task

FUNCTIONS = ("encode_image", "decode")
POINTS = 2
"""Tokens of a click: the point and its padding."""


def export(task: Task) -> list[Path]:
    """ONNX files of both functions; shapes are fixed, as runtimes like them best."""
    folder = task.peer_folder("onnx")
    paths = [folder / f"{name}.onnx" for name in FUNCTIONS]
    if not all(path.exists() for path in paths):
        import torch

        from .torch_peer import build

        folder.mkdir(parents=True, exist_ok=True)
        model = task.model
        embedding = torch.zeros(1, model.prompt_dim, model.grid, model.grid)
        inputs = {
            "encode_image": (torch.zeros(1, 3, model.image_size, model.image_size),),
            "decode": (embedding, torch.zeros(1, POINTS, 2), torch.zeros(1, POINTS)),
        }
        modules = build(task)
        for name, path in zip(FUNCTIONS, paths, strict=True):
            partial = path.with_suffix(".tmp")  # a file of its final name is complete
            with contextlib.redirect_stdout(io.StringIO()):
                torch.onnx.export(modules[name], inputs[name], str(partial), dynamo=True, external_data=False)
            os.replace(partial, path)
    return paths


def prepare(task: Task, precision: str) -> list[Path]:
    """Export, and for "int8" quantize."""
    paths = export(task)
    if precision == "float32":
        return paths
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder = task.peer_folder("onnx-int8")
    folder.mkdir(parents=True, exist_ok=True)
    for path in paths:
        if not (folder / path.name).exists():
            partial = folder / f"{path.name}.tmp"
            graph = onnx.load(path)
            del graph.graph.value_info[:]  # shapes of weights that the quantizer transposes would no longer be true
            quantize_dynamic(graph, partial, weight_type=QuantType.QInt8)
            os.replace(partial, folder / path.name)
    return [folder / path.name for path in paths]


class GraphPeer:
    """A session over functions of arrays, by the names of the model's functions; shapes are those of one click."""

    def __init__(self, model: ModelSpec, functions: Mapping[str, Callable[..., Sequence[np.ndarray]]]) -> None:
        self.model, self._functions = model, functions

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a function by name; return its outputs."""
        return tuple(self._functions[name](*(np.asarray(value, np.float32) for value in inputs)))


def open_session(task: Task, precision: str) -> GraphPeer:
    """Load both graphs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    options.log_severity_level = 3

    def load(path: Path) -> Any:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    paths = prepare(task, precision)
    return GraphPeer(task.model, dict(zip(FUNCTIONS, map(load, paths), strict=True)))
