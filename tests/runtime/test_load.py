"""``load_video``: which bundles it takes."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import tvm_ahcq
from tvm_ahcq.errors import BundleError
from tvm_ahcq.models.sam2.functions import MEMORY_FUNCTIONS
from tvm_ahcq.models.sam2.spec import Sam2Spec
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
from tvm_ahcq.runtime.load import require_video
from tvm_ahcq.runtime.manifest import FunctionSpec, Manifest

MODEL = Sam2Spec(
    "tiny2", 32, 2, 8, 0.0, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), 0.05, 0.98,
    video=True, memories=7, max_pointers=16, memory_dim=4, memory_scale=20.0, memory_bias=-10.0, signed_distances=True,
    past_pointers_only=True, max_conditioning=-1, memory_stride=1, multimask_points=(0, 1),
)  # fmt: skip


def test_a_model_without_memory_is_refused(tmp_path: Path, manifest: Manifest, tensors, tiny_library: bytes) -> None:
    write_bundle(tmp_path / "sam.ahcq", manifest, tiny_library, tensors)
    with pytest.raises(BundleError, match=r"sam\.ahcq: SAM has no memory of frames"):
        tvm_ahcq.load_video(tmp_path / "sam.ahcq")


def test_a_bundle_for_pictures_is_refused(tmp_path: Path, manifest: Manifest, tensors, tiny_library: bytes) -> None:
    pictures = replace(manifest, model=replace(MODEL, video=False))
    write_bundle(tmp_path / "sam2.ahcq", pictures, tiny_library, tensors)
    with pytest.raises(BundleError, match=r"is for pictures only, it has no memory; compile with --video"):
        tvm_ahcq.load_video(tmp_path / "sam2.ahcq")


def test_a_bundle_with_the_memory_parts_is_taken(tmp_path: Path, manifest: Manifest, tensors, tiny_library) -> None:
    parts = {name: FunctionSpec((), ()) for name in MEMORY_FUNCTIONS}
    video = replace(manifest, model=MODEL, functions=manifest.functions | parts)
    write_bundle(tmp_path / "video.ahcq", video, tiny_library, tensors)
    bundle = read_bundle(tmp_path / "video.ahcq")
    require_video(bundle)
    assert bundle.manifest.model == MODEL


def test_tracking_needs_neither_torch_nor_the_compiler() -> None:
    code = (
        "import sys, tvm_ahcq.models.sam2.video_predictor, tvm_ahcq.runtime.video_outputs, tvm_ahcq.cli.track, "
        "tvm_ahcq.cli.track_prompts; print({'torch', 'tvm', 'sam2', 'av'} & set(sys.modules))"
    )
    path = [entry for entry in sys.path if entry]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}; {code}"]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "set()\n"
