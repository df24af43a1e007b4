"""``tvm-ahcq eval --vos`` and ``tvm-ahcq scenes --clips`` as a user meets them, with a tracker without weights."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tvm_ahcq
from tvm_ahcq.cli import evaluate_video
from tvm_ahcq.cli.main import main
from tvm_ahcq.errors import BundleError
from tvm_ahcq.evaluate.datasets.video_folders import LAYOUTS
from tvm_ahcq.evaluate.metrics.video_accuracy import VIDEO_METRICS
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import Manifest, TargetSpec

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``tvm-ahcq scenes --clips`` writes."""
    folder = tmp_path_factory.mktemp("videos") / "try"
    assert main(["scenes", str(folder), "--clips", "2"]) == 0
    return folder


@pytest.fixture
def bundle(tmp_path: Path) -> Callable[..., Path]:
    """Function that writes a bundle for this machine, with a library that nobody loads."""

    def write(name: str = "model.ahcq", sites: tuple[int, int] = (9, 9), weight: float = 0.0) -> Path:
        manifest = Manifest(
            SamSpec("vit_x", 320, 20, 96, 0.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
            TargetSpec("generic", f"{platform.machine()}-linux-gnu"),
            {},
            {"name": "ahcq"},
            4,
            sites,
        )
        write_bundle(tmp_path / name, manifest, b"machine code", {"weight": np.full(3, weight, np.float32)})
        return tmp_path / name

    return write


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch, colour_tracker) -> list[tuple[str, dict[str, Any]]]:
    """Names and options of the bundles that are loaded, for each of which the tracker comes."""
    calls: list[tuple[str, dict[str, Any]]] = []

    def load_video(path: Path, **options: Any) -> Any:
        calls.append((Path(path).name, options))
        return colour_tracker

    monkeypatch.setattr(tvm_ahcq, "load_video", load_video, raising=False)
    return calls


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Function that runs ``tvm-ahcq eval`` in this process: exit status, and what it printed."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        try:
            status = main(["eval", *map(str, arguments)])
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        printed = capsys.readouterr()
        return status, printed.out, printed.err

    return call


def test_scenes_say_where_the_videos_are(tmp_path: Path, capsys: pytest.CaptureFixture[str], videos: Path) -> None:
    assert main(["scenes", str(tmp_path / "try"), "--clips", "1"]) == 0
    out = capsys.readouterr().out
    for name in ("JPEGImages/480p", "Annotations/480p", "ImageSets/2017/val.txt"):
        assert str(tmp_path / "try" / name) in out and (videos / name).exists()
    assert (videos / "ImageSets" / "2017" / "val.txt").read_text() == "clip_0000\nclip_0001\n"


def test_videos_give_a_table_sites_and_the_score_of_every_object(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, loaded: list
) -> None:
    status, out, err = run(bundle(), "--vos", videos, "--json", tmp_path / "out.json")
    assert (status, err) == (0, "")
    written = json.loads((tmp_path / "out.json").read_text())
    assert written["data"]["dataset"] == "DAVIS 2017" and written["data"]["names"] == ["clip_0000", "clip_0001"]
    assert (written["data"]["frames"], written["data"]["metric"], written["data"]["predictions"]) == (
        32,
        "official",
        None,
    )
    (model,) = written["models"]
    accuracy = model["accuracy"]
    assert model["sites"] == [9, 9] and "9/9" in out and "2 videos, 32 frames" in out
    assert len(accuracy["scores"]) == accuracy["objects"] > 2 and accuracy["videos"] == accuracy["tracked"] == 2
    for name in ("j", "f"):
        assert accuracy[name] == pytest.approx(np.mean([score[name] for score in accuracy["scores"]]))
    assert accuracy["jf"] == pytest.approx((accuracy["j"] + accuracy["f"]) / 2)
    assert all(f"{accuracy[name]:.4f}" in out for name in ("jf", "j", "f")) and "J&F" in out
    assert loaded == [("model.ahcq", VIDEO_METRICS["official"].options)]


def test_a_second_run_reads_what_the_first_wrote(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, loaded: list
) -> None:
    arguments = (bundle(), "--vos", videos, "-o", tmp_path / "found")
    status, first, _ = run(*arguments)
    assert status == 0 and len(list((tmp_path / "found").rglob("*.png"))) == 32
    assert Image.open(tmp_path / "found" / "clip_0001" / "00015.png").mode == "P"
    status, second, _ = run(*arguments)
    assert status == 0 and len(loaded) == 1 and "2 videos had predictions" in second

    def figures(text: str) -> list[list[str]]:
        return [line.split()[-5:-2] for line in text.splitlines() if line.lstrip().startswith(str(tmp_path / "model"))]

    assert figures(first) == figures(second) != []
    status, _, err = run(bundle(weight=1.0), "--vos", videos, "-o", tmp_path / "found")
    assert status == 2 and "made otherwise (bundle_sha256" in err and len(loaded) == 1


def test_models_are_compared_and_write_to_folders_of_their_own(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, loaded: list
) -> None:
    models = bundle("a.ahcq"), bundle("b.ahcq", weight=1.0)
    status, out, _ = run(*models, "--vos", videos, "--limit", 1, "-o", tmp_path / "found")
    assert status == 0 and [name for name, _ in loaded] == 2 * ["a.ahcq", "b.ahcq"]
    assert len(list((tmp_path / "found" / "a" / "clip_0000").iterdir())) == 16
    assert len(list((tmp_path / "found" / "b" / "clip_0000").iterdir())) == 16
    assert "J&F 100.0%" in out


def test_a_later_model_that_is_not_for_video_is_refused_before_the_first_is_measured(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, colour_tracker
) -> None:
    def load_video(path: Path, **_: Any) -> Any:
        if Path(path).stem == "b":
            raise BundleError(f"{path} is for pictures; compile with --video")
        return colour_tracker

    monkeypatch.setattr(tvm_ahcq, "load_video", load_video, raising=False)
    models = bundle("a.ahcq"), bundle("b.ahcq", weight=1.0)
    status, out, err = run(*models, "--vos", videos, "-o", tmp_path / "found")
    assert (status, out, colour_tracker.frames) == (2, "", 0) and "b.ahcq is for pictures" in err
    assert not (tmp_path / "found").exists()


def test_the_published_metric_keeps_post_processing_and_writes_objects_apart(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, loaded: list
) -> None:
    status, out, _ = run(
        bundle(), "--vos", videos, "--limit", 1, "--metric", "ahcq-sam", "-o", tmp_path / "found", "--device", "fsim"
    )
    assert status == 0 and "metric ahcq-sam" in out
    assert loaded == [("model.ahcq", {"device": "fsim", "on_device_error": "raise"})]
    assert len(list((tmp_path / "found" / "clip_0000" / "001").iterdir())) == 16


def test_videos_with_first_masks_only_are_predicted_but_not_scored(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, loaded: list
) -> None:
    (tmp_path / "m" / "Annotations" / "a").mkdir(parents=True)
    (tmp_path / "m" / "JPEGImages").mkdir()
    (tmp_path / "m" / "JPEGImages" / "a").symlink_to(videos / "JPEGImages" / "480p" / "clip_0000")
    first = videos / "Annotations" / "480p" / "clip_0000" / "00000.png"
    (tmp_path / "m" / "Annotations" / "a" / "00000.png").symlink_to(first)
    status, out, err = run(bundle(), "--vos", tmp_path / "m")
    assert (status, out, loaded) == (2, "", []) and "no video has masks beyond its first" in err
    status, out, err = run(bundle(), "--vos", tmp_path / "m", "-o", tmp_path / "found")
    assert (status, err) == (0, "") and "nothing: no video has masks" in out
    assert len(list((tmp_path / "found" / "a").iterdir())) == 16


def test_the_names_that_can_be_typed_are_those_that_exist() -> None:
    assert set(evaluate_video.DATASETS) == set(LAYOUTS) and set(evaluate_video.METRICS) == set(VIDEO_METRICS)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (("M", "--vos", "absent"), ("absent", "no such folder")),
        (("M", "--vos", "V", "--dataset", "sav"), ("expected SA-V: JPEGImages_24fps",)),
        (("M", "--vos", "V", "--dataset", "ytvos"), ("'ytvos'", "davis", "sav", "mose")),
        (("M", "--vos", "V", "--metric", "best"), ("'best'", "official", "ahcq-sam")),
        (("M", "--vos", "V", "--video-list", "absent.txt"), ("absent.txt", "no such file")),
        (("M", "--vos", "V", "--images", "V"), ("--images is for pictures",)),
        (("M", "--vos", "V", "--masks", "V"), ("not allowed with",)),
        (("M", "--vos", "V", "--prompt", "box"), ("--prompt is for pictures",)),
        (("M", "--vos", "V", "--device-timeout", "5"), ("--device-timeout cannot be set",)),
        (("M", "--images", "V", "--masks", "V", "--metric", "official"), ("--metric is for videos",)),
        (("M", "--images", "V", "--masks", "V", "--video-list", "M"), ("--video-list is for videos",)),
        (("M", "--images", "V", "--masks", "V", "-o", "found"), ("--predictions is for videos",)),
        (("M", "--masks", "V"), ("--images DIR is missing",)),
        (("float", "--model", "vit_t", "--vos", "V"), ("--vos runs bundles", "float")),
        (("M", "M", "--vos", "V"), ("given twice",)),
        (("M", "--vos", "V", "-o", "M"), ("model.ahcq", "is not a folder")),
        (("M", "--vos", "V", "-o", "absent/found"), ("absent", "does not exist")),
        (("M", "--vos", "V", "--json", "M"), ("model.ahcq", "overwrite")),
    ],
)
def test_mistakes_are_refused_in_one_line_before_any_model_is_loaded(
    run: Run,
    bundle: Callable,
    videos: Path,
    loaded: list,
    arguments: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    known = {"M": bundle(), "V": videos}
    status, out, err = run(*(known.get(argument, argument) for argument in arguments))
    assert (status, out, len(err.splitlines()), loaded) == (2, "", 1, [])
    assert all(word in err for word in words), err


def test_two_models_of_one_name_are_refused_where_both_would_write(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    models = bundle(), bundle("other/model.ahcq")
    status, out, err = run(*models, "--vos", videos, "-o", tmp_path / "found")
    assert (status, out) == (2, "") and "same file name" in err and not (tmp_path / "found").exists()


def test_a_bundle_with_sites_in_float_is_refused(run: Run, bundle: Callable, videos: Path, loaded: list) -> None:
    status, out, err = run(bundle(sites=(7, 9)), "--vos", videos)
    assert (status, out, loaded) == (2, "", []) and "7/9 quantization sites" in err


def test_help_shows_videos(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0 and all(word in out for word in ("--vos", "--video-list", "DAVIS 2017 val", "ahcq-sam"))
