"""The Relax module of the tiny model: a projection of image patches, and a decoder that returns its prompts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import tvm
from tvm.script import ir as I
from tvm.script import relax as R
from tvm.script import tirx as T


@I.ir_module
class TinySam:
    """``encode_image`` averages 16 x 16 patches and projects them; ``decode`` broadcasts sums of what it is given."""

    @R.function
    def encode_image(image: R.Tensor((1, 3, 32, 32), "float32"), weight: R.Tensor((3, 8), "float32")):
        with R.dataflow():
            patches = R.mean(R.reshape(image, (1, 3, 2, 16, 2, 16)), axis=[3, 5])
            last = R.permute_dims(patches, [0, 2, 3, 1])
            out = R.permute_dims(R.matmul(last, weight), [0, 3, 1, 2])
            R.output(out)
        return out

    @R.function
    def decode(embedding: R.Tensor((1, 8, 2, 2), "float32"), point_coords: R.Tensor(("B", "N", 2), "float32"),
               point_labels: R.Tensor(("B", "N"), "float32"), packed: R.Tensor((2, 3, 16, 4), "int8"),
               multiplier: R.Tensor((2, 24), "float32"), correction: R.Tensor((2, 24), "int32")):
        B, N = T.int64(), T.int64()
        with R.dataflow():
            level = R.add(R.sum(point_coords, axis=[1, 2]), R.sum(embedding))
            masks = R.broadcast_to(R.reshape(level, (B, 1, 1, 1)), (B, 4, 8, 8))
            constant = R.add(R.add(R.sum(R.astype(packed, "float32")), R.sum(multiplier)),
                             R.sum(R.astype(correction, "float32")))
            scores = R.add(R.sum(point_labels, axis=[1]), constant)
            iou = R.broadcast_to(R.reshape(scores, (B, 1)), (B, 4))
            R.output(masks, iou)
        return (masks, iou)

    @R.function
    def decode_mask(embedding: R.Tensor((1, 8, 2, 2), "float32"), point_coords: R.Tensor(("B", "N", 2), "float32"),
                    point_labels: R.Tensor(("B", "N"), "float32"), mask_input: R.Tensor(("B", 1, 8, 8), "float32"),
                    packed: R.Tensor((2, 3, 16, 4), "int8"), multiplier: R.Tensor((2, 24), "float32"),
                    correction: R.Tensor((2, 24), "int32")):
        B, N = T.int64(), T.int64()
        with R.dataflow():
            masks = R.broadcast_to(mask_input, (B, 4, 8, 8))
            # as in SAM, tokens of the model come before those of the prompts, of which there may be none
            tokens = R.concat([R.zeros((B, 1), "float32"), point_labels], axis=1)
            iou = R.broadcast_to(R.max(tokens, axis=[1], keepdims=True), (B, 4))
            R.output(masks, iou)
        return (masks, iou)


def library() -> bytes:
    """Compile the module for the baseline of this architecture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        tvm.compile(TinySam, target=tvm.target.Target({"kind": "llvm"})).export_library(str(path))
        return path.read_bytes()
