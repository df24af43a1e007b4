"""Models to evaluate: what is only half quantized is refused; compiled and simulated ones are as accurate."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.errors import BundleError, EvaluationError
from tvm_ahcq.evaluate.datasets.video_folders import read_videos
from tvm_ahcq.evaluate.metrics.variants import Variant, check_coverage, compiled, fake_quant, float_model
from tvm_ahcq.evaluate.metrics.video_accuracy import VIDEO_METRICS, VideoAccuracy, video_accuracy
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import Manifest, TargetSpec


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a bundle for this machine with given sites; its library is never loaded."""

    def write(sites: tuple[int, int], **options: object) -> Path:
        manifest = Manifest(
            SamSpec("vit_x", 320, 20, 96, 0.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
            TargetSpec("generic", f"{platform.machine()}-linux-gnu"),
            {},
            sites=sites,
            **options,
        )
        path = tmp_path / "x.ahcq"
        write_bundle(path, manifest, b"machine code", {"weight": np.zeros(3, np.float32)})
        return path

    return write


def test_a_bundle_says_how_it_is_quantized(bundle: Callable) -> None:
    path = bundle((9, 9), recipe={"name": "ahcq"}, bits=4)
    candidate = compiled(path)
    assert (candidate.name, candidate.model) == (str(path), "vit_x")
    assert (candidate.numbers, candidate.sites) == ("W4A4 ahcq, compiled", (9, 9))


def test_a_float_bundle_has_no_sites_to_cover(bundle: Callable) -> None:
    candidate = compiled(bundle((0, 0)))
    assert (candidate.numbers, candidate.sites) == ("float32, compiled", None)


@pytest.mark.parametrize("sites", [(7, 9), (0, 9), (0, 0)])
def test_a_bundle_with_sites_in_float_is_refused(sites: tuple[int, int], bundle: Callable) -> None:
    path = bundle(sites, recipe={"name": "ahcq"}, bits=4)
    with pytest.raises(EvaluationError, match=rf"x\.ahcq: {sites[0]}/{sites[1]} quantization sites"):
        compiled(path)


def test_coverage_is_returned_once_it_is_whole() -> None:
    assert check_coverage("m", (126, 126)) == (126, 126)
    with pytest.raises(EvaluationError, match="125/126"):
        check_coverage("m", (125, 126))


def test_what_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="no such file"):
        compiled(tmp_path / "absent.ahcq")


@pytest.mark.parametrize("prompt", ["mask", "box"])
def test_a_compiled_tracker_is_as_accurate_as_its_simulation(
    tmp_path: Path, add_video: Callable, clip_masks: Callable, tiny_tracker, prompt: str
) -> None:
    """Activations near the border of two codes may round otherwise, which moves a few pixels of outlines."""
    add_video(tmp_path, "mose", "walk", *clip_masks(3, 5))
    data, metric = read_videos(tmp_path), VIDEO_METRICS["official"]

    def measure(variant: Variant) -> VideoAccuracy:
        return video_accuracy(data, lambda: variant.open_video(**metric.options), metric, prompt=prompt)

    variants = compiled(tiny_tracker.host, video=True), fake_quant(tiny_tracker.qmodel)
    assert variants[0].sites == variants[1].sites
    bundle, simulated = (measure(variant) for variant in variants)
    for mine, expected in zip(bundle.scores, simulated.scores, strict=True):
        assert (mine.j, mine.f) == pytest.approx((expected.j, expected.f), abs=1e-3)
    in_float = measure(float_model(tiny_tracker.qmodel.model))
    assert abs(in_float.figures()["J"] - simulated.figures()["J"]) > 0.01  # the tolerance tells them apart


def test_what_does_not_track_is_refused(colour_predictor: Callable, bundle: Callable, tiny_tracker) -> None:
    plain = Variant("plain", "colour", "float32", None, lambda: colour_predictor().session)
    with pytest.raises(EvaluationError, match="plain: colour does not track objects in videos; expected a SAM 2"):
        plain.open_video()
    with pytest.raises(BundleError, match=r"x\.ahcq: .* has no memory of frames"):
        compiled(bundle((9, 9)), video=True)
