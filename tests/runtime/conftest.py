"""A tiny compiled model with the call convention of a SAM; what it computes is easy to say in numpy."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tvm_ahcq
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.runtime.manifest import FunctionSpec, Manifest, TargetSpec, TensorSpec
from tvm_ahcq.runtime.weights import QLinearWeight

MODEL = SamSpec("tiny", 32, 2, 8, 0.0, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@pytest.fixture
def manifest() -> Manifest:
    """Of a model of 32 pixels whose ``decode`` takes one quantized weight."""
    embedding = TensorSpec("embedding", (1, 8, 2, 2), "float32")
    prompts = (TensorSpec("point_coords", ("B", "N", 2), "float32"), TensorSpec("point_labels", ("B", "N"), "float32"))
    low = TensorSpec("mask_input", ("B", 1, 8, 8), "float32")
    params = ("decoder.lin.weight",)
    return Manifest(
        model=MODEL,
        target=TargetSpec("generic", "x86_64-linux-gnu"),
        functions={
            "encode_image": FunctionSpec((TensorSpec("image", (1, 3, 32, 32), "float32"),), ("image_encoder.weight",)),
            "decode": FunctionSpec((embedding, *prompts), params),
            "decode_mask": FunctionSpec((embedding, *prompts, low), params),
        },
        recipe={"name": "ahcq", "bits": 4},
        bits=4,
        sites=(1, 1),
    )


@pytest.fixture
def tensors() -> dict[str, np.ndarray | QLinearWeight]:
    """One raw tensor, and one quantized weight with two groups and padding."""
    rng = np.random.default_rng(0)
    weight = QLinearWeight(
        codes=rng.integers(0, 16, (24, 10), dtype=np.uint8),
        bits=4,
        scale=rng.uniform(0.01, 0.02, 24).astype(np.float32),
        zero_point=np.full(24, 7, np.uint8),
        index=np.array([3, 1, 4, -1, 0, 2, 5, 6, 9, 8, 7, -1], np.int32),
        group_sizes=(4, 8),
        group_scale=np.array([0.5, 0.25], np.float32),
        group_zero_point=np.array([3, 0], np.int32),
    )
    return {"image_encoder.weight": rng.standard_normal((3, 8)).astype(np.float32), "decoder.lin.weight": weight}


@pytest.fixture(scope="session")
def tiny_library() -> bytes:
    """The compiled library of the tiny model."""
    import tvm
    from tvm.script import ir as I
    from tvm.script import relax as R
    from tvm.script import tirx as T

    @I.ir_module
    class TinySam:
        @R.function
        def encode_image(image: R.Tensor((1, 3, 32, 32), "float32"), weight: R.Tensor((3, 8), "float32")):
            with R.dataflow():
                patches = R.mean(R.reshape(image, (1, 3, 2, 16, 2, 16)), axis=[3, 5])
                last = R.permute_dims(patches, [0, 2, 3, 1])
                out = R.permute_dims(R.matmul(last, weight), [0, 3, 1, 2])
                R.output(out)
            return out

        @R.function
        def decode(
            embedding: R.Tensor((1, 8, 2, 2), "float32"),
            point_coords: R.Tensor(("B", "N", 2), "float32"),
            point_labels: R.Tensor(("B", "N"), "float32"),
            packed: R.Tensor((2, 3, 16, 4), "int8"),
            multiplier: R.Tensor((2, 24), "float32"),
            correction: R.Tensor((2, 24), "int32"),
        ):
            B = T.int64()
            with R.dataflow():
                level = R.add(R.sum(point_coords, axis=[1, 2]), R.sum(embedding))
                masks = R.broadcast_to(R.reshape(level, (B, 1, 1, 1)), (B, 4, 8, 8))
                constant = R.add(
                    R.add(R.sum(R.astype(packed, "float32")), R.sum(multiplier)), R.sum(R.astype(correction, "float32"))
                )
                scores = R.add(R.sum(point_labels, axis=[1]), constant)
                iou = R.broadcast_to(R.reshape(scores, (B, 1)), (B, 4))
                R.output(masks, iou)
            return (masks, iou)

        @R.function
        def decode_mask(
            embedding: R.Tensor((1, 8, 2, 2), "float32"),
            point_coords: R.Tensor(("B", "N", 2), "float32"),
            point_labels: R.Tensor(("B", "N"), "float32"),
            mask_input: R.Tensor(("B", 1, 8, 8), "float32"),
            packed: R.Tensor((2, 3, 16, 4), "int8"),
            multiplier: R.Tensor((2, 24), "float32"),
            correction: R.Tensor((2, 24), "int32"),
        ):
            B = T.int64()
            with R.dataflow():
                masks = R.broadcast_to(mask_input, (B, 4, 8, 8))
                # as in SAM, tokens of the model come before those of the prompts, of which there may be none
                tokens = R.concat([R.zeros((B, 1), "float32"), point_labels], axis=1)
                iou = R.broadcast_to(R.max(tokens, axis=[1], keepdims=True), (B, 4))
                R.output(masks, iou)
            return (masks, iou)

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        tvm.compile(TinySam, target=tvm.target.Target({"kind": "llvm"})).export_library(str(path))
        return path.read_bytes()


@pytest.fixture(scope="session")
def run_alone() -> Callable[..., str]:
    """Run Python source in a process where the compiler's packages cannot be imported; returns what it prints."""
    blocked = ("torch", "torchvision", "segment_anything", "tvm", "rich", "safetensors", "skimage")
    guard = textwrap.dedent(f"""\
        import sys
        from importlib.machinery import PathFinder

        class Blocked:
            # packages can be found, as installed ones are, but not executed
            def find_spec(self, name, path=None, target=None):
                if name in {blocked!r} and (spec := PathFinder.find_spec(name, path)):
                    spec.loader = self
                    return spec

            def create_module(self, spec):
                raise ImportError(spec.name + " is blocked")

            def exec_module(self, module):
                raise ImportError(module.__name__ + " is blocked")

        sys.meta_path.insert(0, Blocked())
        """)

    def run(source: str, *arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", guard + textwrap.dedent(source), *arguments],
            cwd=Path(tvm_ahcq.__file__).parents[1],  # where the library lies, too
            text=True,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run
