"""OpenVINO: the exported float model, run in float32 or bfloat16, and with its encoder quantized to int8 by NNCF.

The other functions stay in float32 then, as users of SAM in OpenVINO do it: NNCF's int8 decoder gives empty masks.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from tvm_ahcq.models.registry import find_family

from .onnx_peer import GraphPeer, export
from .task import Task, functions_of

CALIBRATION_SCENES = 4
"""Generated scenes that NNCF observes; its statistics of a large encoder take gigabytes."""

_FIRST_SCENE = 30_000_000


def prepare(task: Task, precision: str) -> list[Path]:
    """Export, and for "int8" quantize the encoder on generated scenes."""
    encoder, *others = export(task)
    if precision != "int8":
        return [encoder, *others]
    folder = task.peer_folder("openvino-int8")
    path = folder / f"{encoder.stem}.xml"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        _quantize(encoder, path, _samples(task))
    return [path, path.with_suffix(".bin"), *others]


def _samples(task: Task) -> list[np.ndarray]:
    """Preprocessed scenes, ``(1, 3, S, S)`` float32 each."""
    from tvm_ahcq.scenes import generate

    prepare_image = find_family(task.model.family).prepare
    return [prepare_image(task.model, generate(_FIRST_SCENE + n).image) for n in range(CALIBRATION_SCENES)]


def _quantize(source: Path, path: Path, samples: list[np.ndarray]) -> None:
    import nncf
    import openvino

    graph = openvino.Core().read_model(source)
    quantized = nncf.quantize(
        graph,
        nncf.Dataset(samples),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(samples),
    )
    partial = path.with_name(f"part-{path.name}")
    openvino.save_model(quantized, partial, compress_to_fp16=False)
    os.replace(partial.with_suffix(".bin"), path.with_suffix(".bin"))
    os.replace(partial, path)  # last: it says that both are complete


def open_session(task: Task, precision: str) -> GraphPeer:
    """Load all graphs; what is not int8 runs in float32."""
    import openvino

    core = openvino.Core()
    options = {
        "INFERENCE_NUM_THREADS": task.threads,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32",
    }

    def load(path: Path) -> Any:
        compiled = core.compile_model(path, "CPU", options)
        return lambda *arrays: tuple(np.array(value) for value in compiled(arrays).values())

    paths = [path for path in prepare(task, precision) if path.suffix in (".onnx", ".xml")]
    return GraphPeer(task.model, dict(zip(functions_of(task.model), map(load, paths), strict=True)))
