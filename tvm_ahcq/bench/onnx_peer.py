"""ONNX Runtime: the exported float model, and its weights and activations in int8 by dynamic quantization."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.runtime.manifest import ModelSpec

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
    """A session over two functions of arrays; the decoder takes one click."""

    def __init__(self, model: ModelSpec, encode: Any, decode: Any) -> None:
        self._model, self._encode, self._decode = model, encode, decode

    @property
    def model(self) -> ModelSpec:
        """Figures of the model."""
        return self._model

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Image to embedding."""
        (embedding,) = self._encode(image)
        return embedding

    def decode(
        self,
        embedding: np.ndarray,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """One click without a mask to masks and scores."""
        arrays = (np.asarray(array, np.float32) for array in (embedding, point_coords, point_labels))
        masks, iou = self._decode(*arrays)
        return masks, iou


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

    return GraphPeer(task.model, *map(load, prepare(task, precision)))
