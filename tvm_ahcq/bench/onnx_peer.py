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
from tvm_ahcq.models.registry import timing_of

from .task import Task, functions_of, plain


def export(task: Task) -> list[Path]:
    """Export the functions to ONNX files, with fixed shapes: those of one click."""
    folder, functions = task.peer_folder("onnx"), functions_of(task.model)
    paths = [folder / f"{name}.onnx" for name in functions]
    if not all(path.exists() for path in paths):
        import torch

        from .torch_peer import build

        folder.mkdir(parents=True, exist_ok=True)
        modules = build(task)
        for name, path in zip(functions, paths, strict=True):
            inputs = tuple(map(torch.from_numpy, timing_of(task.model).example_inputs(task.model, name, 1)))
            partial = path.with_suffix(".tmp")  # a file of its final name is complete
            with contextlib.redirect_stdout(io.StringIO()):
                torch.onnx.export(modules[name], inputs, str(partial), dynamo=True, external_data=False)
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
        return tuple(self._functions[name](*map(plain, inputs)))


def open_session(task: Task, precision: str) -> GraphPeer:
    """Load all graphs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    options.log_severity_level = 3

    def load(path: Path) -> Any:
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_inputs()]
        return lambda *arrays: session.run(None, dict(zip(names, arrays, strict=True)))

    paths = prepare(task, precision)
    return GraphPeer(task.model, dict(zip(functions_of(task.model), map(load, paths), strict=True)))
