"""``tvm-ahcq eval --vos`` and ``tvm-ahcq scenes --clips`` as a user meets them, with a tiny SAM 2."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tvm_ahcq.cli import evaluate_video
from tvm_ahcq.cli.main import main
from tvm_ahcq.evaluate.datasets.clip_files import write_clips
from tvm_ahcq.evaluate.datasets.video_folders import LAYOUTS
from tvm_ahcq.evaluate.metrics.video_accuracy import VIDEO_METRICS
from tvm_ahcq.evaluate.metrics.video_tracking import PROMPTS
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
from tvm_ahcq.runtime.manifest import Manifest, TargetSpec

Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``tvm-ahcq scenes --clips`` writes: two clips of 16 frames."""
    folder = tmp_path_factory.mktemp("videos") / "try"
    assert main(["scenes", str(folder), "--clips", "2"]) == 0
    return folder


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of three frames."""
    folder = tmp_path_factory.mktemp("short") / "try"
    write_clips(folder, 0, 1, length=3, size=128)
    return folder


@pytest.fixture
def bundle(tmp_path: Path, tiny_tracker) -> Callable[..., Path]:
    """Function that writes a bundle for this machine, with a library that cannot be loaded."""
    tracker = read_bundle(tiny_tracker.host).manifest

    def write(name: str = "model.ahcq", sites: tuple[int, int] = (9, 9), memory: bool = True) -> Path:
        manifest = Manifest(
            replace(tracker.model, video=memory),
            TargetSpec("generic", f"{platform.machine()}-linux-gnu"),
            {},
            {"name": "ahcq"},
            4,
            sites,
        )
        write_bundle(tmp_path / name, manifest, b"machine code", {"weight": np.zeros(3, np.float32)})
        return tmp_path / name

    return write


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
    run: Run, tiny_tracker, videos: Path, tmp_path: Path
) -> None:
    status, out, err = run(tiny_tracker.host, "--vos", videos, "--json", tmp_path / "out.json")
    assert (status, err) == (0, "")
    written = json.loads((tmp_path / "out.json").read_text())
    data = written["data"]
    assert data["dataset"] == "DAVIS 2017" and data["names"] == ["clip_0000", "clip_0001"]
    expected = {"frames": 32, "metric": "official", "prompt": "mask", "predictions": None}
    assert {name: data[name] for name in expected} == expected
    (model,) = written["models"]
    accuracy, (covered, total) = model["accuracy"], tiny_tracker.qmodel.sites
    assert model["sites"] == [covered, total] and f"{covered}/{total}" in out and "2 videos, 32 frames" in out
    assert len(accuracy["scores"]) == accuracy["objects"] > 2 and accuracy["videos"] == accuracy["tracked"] == 2
    for name in ("j", "f"):
        assert accuracy[name] == pytest.approx(np.mean([score[name] for score in accuracy["scores"]]))
    assert accuracy["jf"] == pytest.approx((accuracy["j"] + accuracy["f"]) / 2) and accuracy["jf"] > 0
    assert all(f"{accuracy[name]:.4f}" in out for name in ("jf", "j", "f")) and "J&F" in out


def scores(path: Path) -> list[dict[str, object]]:
    """J and F of each object, of the first model that was measured."""
    found: list[dict[str, object]] = json.loads(path.read_text())["models"][0]["accuracy"]["scores"]
    return found


def test_a_second_run_reads_what_the_first_wrote(run: Run, tiny_tracker, short: Path, tmp_path: Path) -> None:
    found, first, second = (tmp_path / name for name in ("found", "first.json", "second.json"))
    arguments = ("--vos", short, "-o", found, "--json")
    status, out, _ = run(tiny_tracker.host, *arguments, first)
    files = {path: path.stat().st_mtime_ns for path in found.rglob("*.png")}
    assert status == 0 and len(files) == 3 and "had predictions" not in out
    assert Image.open(found / "clip_0000" / "00002.png").mode == "P"
    status, out, _ = run(tiny_tracker.host, *arguments, second)
    assert status == 0 and "1 videos had predictions" in out and scores(first) == scores(second) != []
    assert files == {path: path.stat().st_mtime_ns for path in found.rglob("*.png")}
    status, out, err = run(tiny_tracker.both, "--vos", short, "-o", found)
    assert (status, out) == (2, "") and "made otherwise (bundle_sha256" in err
    status, out, err = run(tiny_tracker.host, "--vos", short, "-o", found, "--prompt", "box")
    assert (status, out) == (2, "") and "made otherwise (prompt" in err


def test_a_run_that_was_interrupted_goes_on_after_the_last_whole_video(
    run: Run, tiny_tracker, videos: Path, tmp_path: Path
) -> None:
    found, listing = tmp_path / "found", tmp_path / "list.txt"
    arguments = (tiny_tracker.host, "--vos", videos, "-o", found, "--json")
    assert run(*arguments, tmp_path / "whole.json", "--video-list", write(listing, "clip_0001\n"))[0] == 0
    (found / "clip_0001" / "00015.png").unlink()
    status, out, _ = run(*arguments, tmp_path / "again.json", "--video-list", listing)
    assert status == 0 and "had predictions" not in out and (found / "clip_0001" / "00015.png").is_file()
    assert scores(tmp_path / "whole.json") == scores(tmp_path / "again.json") != []


def write(path: Path, text: str) -> Path:
    """Write a file; return its path."""
    path.write_text(text)
    return path


def test_models_are_compared_and_write_to_folders_of_their_own(
    run: Run, tiny_tracker, short: Path, tmp_path: Path
) -> None:
    models = [shutil.copy(tiny_tracker.host, tmp_path / name) for name in ("a.ahcq", "b.ahcq")]
    status, out, _ = run(*models, "--vos", short, "-o", tmp_path / "found")
    assert status == 0 and "had predictions" not in out and "J&F 100.0%" in out
    for name in ("a", "b"):
        assert len(list((tmp_path / "found" / name / "clip_0000").iterdir())) == 3


def test_a_later_model_that_is_not_for_video_is_refused_before_the_first_is_measured(
    run: Run, bundle: Callable, tiny_tracker, videos: Path, tmp_path: Path
) -> None:
    status, out, err = run(tiny_tracker.host, bundle(memory=False), "--vos", videos, "-o", tmp_path / "found")
    assert (status, out, len(err.splitlines())) == (2, "", 1) and not (tmp_path / "found").exists()
    assert "model.ahcq" in err and "pictures only" in err and "--video" in err


@pytest.mark.parametrize("prompt", ["click", "box"])
def test_objects_are_shown_by_other_prompts(run: Run, tiny_tracker, short: Path, tmp_path: Path, prompt: str) -> None:
    by_prompt = {}
    for name in (prompt, "mask"):
        path = tmp_path / f"{name}.json"
        found = tmp_path / name
        status, out, _ = run(tiny_tracker.host, "--vos", short, "--prompt", name, "--json", path, "-o", found)
        assert status == 0 and f"from the first {name} of each object" in out
        assert json.loads(path.read_text())["data"]["prompt"] == name
        by_prompt[name] = scores(path)
    assert by_prompt[prompt] != by_prompt["mask"]


def test_the_float_model_is_the_reference_of_a_bundle(run: Run, tiny_tracker, short: Path, tmp_path: Path) -> None:
    models = ("float", tiny_tracker.host, "--model", "sam2_n")
    status, out, _ = run(*models, "--vos", short, "-o", tmp_path / "found", "--json", tmp_path / "out.json")
    in_float, bundle = json.loads((tmp_path / "out.json").read_text())["models"]
    assert status == 0 and f"{tiny_tracker.host}, of float: J&F" in out
    assert (in_float["model"], in_float["numbers"], in_float["sites"]) == ("sam2_n", "float32, torch", None)
    assert in_float["accuracy"]["objects"] == bundle["accuracy"]["objects"] > 2
    assert in_float["accuracy"]["jf"] > bundle["accuracy"]["jf"]  # of random weights
    for name in ("float", "host"):
        assert len(list((tmp_path / "found" / name / "clip_0000").iterdir())) == 3


def test_a_device_that_fails_ends_the_run_or_leaves_it_to_the_host(
    run: Run, tiny_tracker, short: Path, tmp_path: Path
) -> None:
    arguments = (tiny_tracker.both, "--vos", short, "--device", "fsim:sim_4x4,hang=2", "--device-timeout", "0.3")
    status, _, err = run(*arguments)
    assert status == 2 and "0.3 s" in err
    status, out, _ = run(*arguments, "--on-device-error", "host", "--json", tmp_path / "both.json")
    assert status == 0 and "CPU + fsim:sim_4x4,hang=2 sim_4x4" in out
    assert run(tiny_tracker.host, "--vos", short, "--json", tmp_path / "host.json")[0] == 0
    for mine, expected in zip(scores(tmp_path / "both.json"), scores(tmp_path / "host.json"), strict=True):
        assert mine == {
            name: value if isinstance(value, str) else pytest.approx(value) for name, value in expected.items()
        }


def test_the_published_metric_keeps_post_processing_and_writes_objects_apart(
    run: Run, tiny_tracker, short: Path, tmp_path: Path
) -> None:
    status, out, _ = run(tiny_tracker.host, "--vos", short, "--metric", "ahcq-sam", "-o", tmp_path / "found")
    assert status == 0 and "metric ahcq-sam" in out
    assert len(list((tmp_path / "found" / "clip_0000" / "001").iterdir())) == 3


def test_videos_with_first_masks_only_are_predicted_but_not_scored(
    run: Run, tiny_tracker, short: Path, tmp_path: Path
) -> None:
    (tmp_path / "m" / "Annotations" / "a").mkdir(parents=True)
    (tmp_path / "m" / "JPEGImages").mkdir()
    (tmp_path / "m" / "JPEGImages" / "a").symlink_to(short / "JPEGImages" / "480p" / "clip_0000")
    first = short / "Annotations" / "480p" / "clip_0000" / "00000.png"
    (tmp_path / "m" / "Annotations" / "a" / "00000.png").symlink_to(first)
    status, out, err = run(tiny_tracker.host, "--vos", tmp_path / "m")
    assert (status, out) == (2, "") and "no video has masks beyond its first" in err
    status, out, err = run(tiny_tracker.host, "--vos", tmp_path / "m", "-o", tmp_path / "found")
    assert (status, err) == (0, "") and "nothing: no video has masks" in out
    assert len(list((tmp_path / "found" / "a").iterdir())) == 3


def test_the_names_that_can_be_typed_are_those_that_exist() -> None:
    assert set(evaluate_video.DATASETS) == set(LAYOUTS) and set(evaluate_video.METRICS) == set(VIDEO_METRICS)


def test_every_prompt_can_be_typed(run: Run) -> None:
    _, out, _ = run("--help")
    listed = out[out.index("--prompt {") :].split("}")[0]
    assert set(PROMPTS) <= set(listed.removeprefix("--prompt {").split(","))


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
        (("M", "--vos", "V", "--prompt", "both"), ("--prompt both is for pictures", "mask, click or box")),
        (("M", "--vos", "V", "--prompt", "point"), ("'point'", "click", "box", "mask")),
        (("M", "--images", "V", "--masks", "V", "--prompt", "mask"), ("--prompt mask is for videos", "click, box")),
        (("P", "--vos", "V"), ("pictures.ahcq", "pictures only", "--video")),
        (("S", "--vos", "V"), ("sam.ahcq", "no memory of frames", "--video")),
        (("M", "--images", "V", "--masks", "V", "--metric", "official"), ("--metric is for videos",)),
        (("M", "--images", "V", "--masks", "V", "--video-list", "M"), ("--video-list is for videos",)),
        (("M", "--images", "V", "--masks", "V", "-o", "found"), ("--predictions is for videos",)),
        (("M", "--masks", "V"), ("--images DIR is missing",)),
        (("float", "--vos", "V"), ("float of which model",)),
        (("float", "--model", "vit_t", "--vos", "V"), ("vit_t does not track objects in videos", "sam2_n")),
        (("float", "--model", "sam2.1_hiera_t", "--vos", "V"), ("comes without weights", "--checkpoint")),
        (("M", "M", "--vos", "V"), ("given twice",)),
        (("M", "--vos", "V", "-o", "M"), ("model.ahcq", "is not a folder")),
        (("M", "--vos", "V", "-o", "absent/found"), ("absent", "does not exist")),
        (("M", "--vos", "V", "--json", "M"), ("model.ahcq", "overwrite")),
    ],
)
def test_mistakes_are_refused_in_one_line_before_any_model_is_loaded(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path, arguments: tuple[str, ...], words: tuple[str, ...]
) -> None:
    known = {"M": bundle(), "V": videos, "P": bundle("pictures.ahcq", memory=False), "S": tmp_path / "sam.ahcq"}
    sam = SamSpec("vit_x", 320, 20, 96, 0.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    manifest = replace(read_bundle(known["M"]).manifest, model=sam)
    write_bundle(known["S"], manifest, b"machine code", {"weight": np.zeros(3, np.float32)})
    status, out, err = run(*(known.get(argument, argument) for argument in arguments))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert all(word in err for word in words), err


def test_two_models_of_one_name_are_refused_where_both_would_write(
    run: Run, bundle: Callable, videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    models = bundle(), bundle("other/model.ahcq")
    status, out, err = run(*models, "--vos", videos, "-o", tmp_path / "found")
    assert (status, out) == (2, "") and "same file name" in err and not (tmp_path / "found").exists()


def test_a_bundle_with_sites_in_float_is_refused(run: Run, bundle: Callable, videos: Path) -> None:
    status, out, err = run(bundle(sites=(7, 9)), "--vos", videos)
    assert (status, out) == (2, "") and "7/9 quantization sites" in err


def test_help_shows_videos(run: Run) -> None:
    status, out, _ = run("--help")
    assert status == 0 and all(word in out for word in ("--vos", "--video-list", "DAVIS 2017 val", "ahcq-sam"))
