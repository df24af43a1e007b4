"""A tiny compiled model with the call convention of a SAM, and its bundle; what it computes is easy to say in numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import FunctionSpec, Manifest, ModelSpec, TargetSpec, TensorSpec
from tvm_ahcq.runtime.weights import QLinearWeight

MODEL = ModelSpec("tiny", 32, 2, 8, 0.0, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


def manifest(params: tuple[str, ...] = (), cpu_features: tuple[str, ...] = ()) -> Manifest:
    """Manifest of a model of 32 pixels whose ``decode`` takes `params`."""
    embedding = TensorSpec("embedding", (1, 8, 2, 2), "float32")
    prompts = (TensorSpec("point_coords", ("B", "N", 2), "float32"), TensorSpec("point_labels", ("B", "N"), "float32"))
    low = TensorSpec("mask_input", ("B", 1, 8, 8), "float32")
    return Manifest(
        model=MODEL, target=TargetSpec("generic", "x86_64-linux-gnu", cpu_features),
        functions={
            "encode_image": FunctionSpec((TensorSpec("image", (1, 3, 32, 32), "float32"),), ("image_encoder.weight",)),
            "decode": FunctionSpec((embedding, *prompts), params),
            "decode_mask": FunctionSpec((embedding, *prompts, low), params),
        },
        recipe={"name": "ahcq", "bits": 4}, bits=4, sites=(1, 1),
    )


def tensors() -> dict[str, np.ndarray | QLinearWeight]:
    """One raw tensor and one quantized weight with two groups and padding."""
    rng = np.random.default_rng(0)
    weight = QLinearWeight(
        codes=rng.integers(0, 16, (24, 10), dtype=np.uint8), bits=4,
        scale=rng.uniform(0.01, 0.02, 24).astype(np.float32), zero_point=np.full(24, 7, np.uint8),
        index=np.array([3, 1, 4, -1, 0, 2, 5, 6, 9, 8, 7, -1], np.int32), group_sizes=(4, 8),
        group_scale=np.array([0.5, 0.25], np.float32), group_zero_point=np.array([3, 0], np.int32))
    return {"image_encoder.weight": rng.standard_normal((3, 8)).astype(np.float32), "decoder.lin.weight": weight}


def write(path: Path, library: bytes, golden: dict[str, np.ndarray] | None = None) -> Manifest:
    """Write the bundle of the tiny model."""
    return write_bundle(path, manifest(("decoder.lin.weight",)), library, tensors(), golden)
