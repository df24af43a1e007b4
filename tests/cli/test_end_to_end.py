"""The commands on a real bundle: the embedded model, compiled by ``tvm-ahcq compile``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import tvm_ahcq as ahcq
from tvm_ahcq import scenes
from tvm_ahcq.cli.compile import generated_images
from tvm_ahcq.evaluate.datasets.scene_files import write_scenes
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.bundle import read_bundle

pytestmark = pytest.mark.slow

SCENE = scenes.generate(7)


@dataclass(frozen=True)
class Written:
    """A folder with what a command wrote, its bundle, and what it printed."""

    folder: Path
    bundle: Path
    printed: str


@pytest.fixture(scope="module")
def demonstrated(run_cli: Callable, tmp_path_factory: pytest.TempPathFactory) -> Written:
    folder = tmp_path_factory.mktemp("demo")
    done = run_cli("demo", "--out-dir", folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return Written(folder, folder / "vit_t-w4a4.ahcq", done.stdout)


@pytest.fixture(scope="module")
def compiled(demonstrated: Written, run_cli: Callable, tmp_path_factory: pytest.TempPathFactory) -> Written:
    """Calibrated on the pictures of the demo, with other schedules than the default where there is a choice."""
    folder = tmp_path_factory.mktemp("compiled")
    (folder / "calibration").mkdir()
    for number, picture in enumerate(generated_images()):
        Image.fromarray(picture).save(folder / "calibration" / f"{number:02d}.png")
    tuned = find_schedules(demonstrated.bundle, folder / "tuning")
    done = run_cli(
        *("compile", "--model", "vit_t", "--calibration", "calibration"),
        *("--table", "table.json", "--dump-dir", "dump", "-o", "m.ahcq"),
        *(("--tuning", "tuning") if tuned else ()),
        cwd=folder,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    Image.fromarray(SCENE.image).save(folder / "scene.png")
    return Written(folder, folder / "m.ahcq", done.stdout)


def find_schedules(bundle: Path, records: Path) -> bool:
    """Tune two shapes of a bundle, and choose another schedule than the default for the rest; False if there is no
    choice on this machine."""
    from tvm_ahcq.kernels.gemm.tiling import DEFAULT, linear_space
    from tvm_ahcq.target import resolve_target
    from tvm_ahcq.tune.host.measure import make_runner
    from tvm_ahcq.tune.host.tuner import tune, workloads
    from tvm_ahcq.tune.records import Record, append, read

    host = resolve_target("native")
    if len(linear_space(host)) == 1:
        return False
    work = workloads(read_bundle(bundle))
    first = dict(list(work.items())[:2])
    tune(host, first, 3, records, make_runner(host))
    assert {record.workload for record in read(records)} == set(first)
    other = next(schedule for schedule in linear_space(host) if schedule != DEFAULT)
    append(records, [Record(host.name, each, rows, other, 1e-9) for each, rows in work.items() if each not in first])
    return True


@pytest.fixture(scope="module")
def click() -> tuple[int, int]:
    """A pixel (x, y) in the middle of an object of the scene."""
    y, x = np.argwhere(SCENE.mask(SCENE.objects()[0])).mean(axis=0).astype(int)
    return int(x), int(y)


def test_compile_writes_the_bundle_the_table_and_the_dumps(compiled: Written) -> None:
    table = QuantTable.load(compiled.folder / "table.json")
    assert table.model == "vit_t" and table.sites
    assert any((compiled.folder / "dump").iterdir())
    assert str(compiled.bundle.name) in compiled.printed and "on integers" in compiled.printed


def test_bench_compares_with_torch_and_names_what_is_left_out(run_cli: Callable, compiled: Written) -> None:
    done = run_cli(
        "bench", compiled.bundle, "--peers", "torch float32", "--repeats", 2, "-o", "table.md", cwd=compiled.folder
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    lines = [line.split(" | ") for line in (compiled.folder / "table.md").read_text().splitlines() if line[:2] == "| "]
    assert [line[0] for line in lines] == ["| runtime", "| ---", "| tvm-ahcq", "| torch float32"]
    assert float(lines[2][2]) == 1 and float(lines[3][2]) > 0
    assert "vit_t at 256 x 256" in done.stdout and "2 rounds" in done.stdout


def test_tuning_and_pictures_from_files_change_no_bit(demonstrated: Written, compiled: Written) -> None:
    tuned, default = ahcq.load(compiled.bundle), ahcq.load(demonstrated.bundle)
    chosen = (compiled.folder / "tuning").exists()
    assert (read_bundle(compiled.bundle).library != read_bundle(demonstrated.bundle).library) == chosen
    for predictor in (tuned, default):
        predictor.set_image(SCENE.image)
    np.testing.assert_array_equal(tuned.get_image_embedding(), default.get_image_embedding())


def test_info_tells_precision_and_sites(run_cli: Callable, compiled: Written) -> None:
    done = run_cli("info", compiled.bundle)
    assert done.returncode == 0
    assert "vit_t" in done.stdout and "W4A4, recipe ahcq" in done.stdout


def test_verify_accepts_the_bundle_and_refuses_a_damaged_copy(
    run_cli: Callable, compiled: Written, tmp_path: Path
) -> None:
    done = run_cli("verify", compiled.bundle)
    assert (done.returncode, done.stderr) == (0, "")
    damaged = tmp_path / "damaged.ahcq"
    shutil.copy(compiled.bundle, damaged)
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    done = run_cli("verify", damaged)
    assert (done.returncode, done.stdout) == (2, "")
    assert "damaged" in done.stderr and len(done.stderr.splitlines()) == 1


def test_segment_writes_the_mask_that_the_library_predicts(
    run_cli: Callable, compiled: Written, click: tuple[int, int], tmp_path: Path
) -> None:
    out, mask_out = tmp_path / "out.png", tmp_path / "mask.png"
    done = run_cli(
        "segment",
        compiled.bundle,
        compiled.folder / "scene.png",
        "--point",
        "{},{}".format(*click),
        "-o",
        out,
        "--mask-out",
        mask_out,
    )
    assert (done.returncode, done.stderr) == (0, "")

    predictor = ahcq.load(compiled.bundle)
    predictor.set_image(SCENE.image)
    masks, _, _ = predictor.predict(np.array([click]), np.array([1]), multimask_output=False)
    np.testing.assert_array_equal(np.asarray(Image.open(mask_out)), masks[0] * np.uint8(255))
    assert np.asarray(Image.open(out)).shape == SCENE.image.shape


def test_segment_with_multimask_draws_the_best_of_three(
    run_cli: Callable, compiled: Written, click: tuple[int, int], tmp_path: Path
) -> None:
    done = run_cli(
        "segment",
        compiled.bundle,
        compiled.folder / "scene.png",
        "--point",
        "{},{}".format(*click),
        "--point",
        "3,3,0",
        "--multimask",
        "-o",
        tmp_path / "out.png",
    )
    lines = [line for line in done.stdout.splitlines() if line.split()[0] == "mask"]
    scores = [float(line.split()[2].rstrip(",")) for line in lines]
    assert len(lines) == 3
    assert lines[int(np.argmax(scores))].endswith("drawn")


def test_segment_refuses_a_click_outside_the_picture(run_cli: Callable, compiled: Written, tmp_path: Path) -> None:
    done = run_cli(
        "segment", compiled.bundle, compiled.folder / "scene.png", "--point", "256.5,10", "-o", tmp_path / "out.png"
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "outside" in done.stderr and not (tmp_path / "out.png").exists()


def test_eval_finds_the_compiled_model_as_accurate_as_its_simulation(
    run_cli: Callable, compiled: Written, tmp_path: Path
) -> None:
    write_scenes(tmp_path, 100, 3)
    done = run_cli(
        "eval",
        "fake-quant",
        compiled.bundle,
        "--model",
        "vit_t",
        "--calibration",
        compiled.folder / "table.json",
        "--images",
        "images",
        "--masks",
        "masks",
        "--json",
        "out.json",
        cwd=tmp_path,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    simulated, real = json.loads((tmp_path / "out.json").read_text())["models"]
    assert simulated["sites"] == real["sites"] and real["sites"][0] == real["sites"][1] > 100
    for way in ("click", "single_click", "box"):
        assert simulated["accuracy"][way] > 0.8
        assert abs(simulated["accuracy"][way] - real["accuracy"][way]) <= 0.002
    assert done.stdout.count("{}/{}".format(*real["sites"])) == 2


def test_eval_of_a_bundle_needs_neither_torch_nor_the_compiler(
    run_cli: Callable, compiled: Written, tmp_path: Path
) -> None:
    write_scenes(tmp_path, 100, 2)
    done = run_cli(
        "eval",
        compiled.bundle,
        "--images",
        "images",
        "--coco",
        "instances.json",
        "--detections",
        "detections.json",
        cwd=tmp_path,
        modules_to=tmp_path / "modules",
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "AP50" in done.stdout and "W4A4 ahcq, compiled" in done.stdout
    modules = set((tmp_path / "modules").read_text().split())
    assert not {"torch", "tvm", "tvm_ahcq.api", "tvm_ahcq.models.sam.load"} & modules


@pytest.mark.parametrize("command", ["segment", "info", "verify"])
def test_deployment_commands_import_neither_torch_nor_the_compiler(
    command: str, run_cli: Callable, compiled: Written, tmp_path: Path
) -> None:
    rest = (compiled.folder / "scene.png", "--box", "20,20,200,200", "-o", tmp_path / "o.png")
    done = run_cli(command, compiled.bundle, *(rest if command == "segment" else ()), modules_to=tmp_path / "modules")
    assert done.returncode == 0, done.stderr
    modules = set((tmp_path / "modules").read_text().split())
    assert "tvm_ahcq.runtime.bundle" in modules
    assert not {"torch", "tvm", "tvm_ahcq.api", "tvm_ahcq.models.sam.load"} & modules


def test_demo_measures_and_draws(run_cli: Callable, demonstrated: Written) -> None:
    lines = demonstrated.printed.splitlines()
    labels = [line.split()[0] for line in lines if line.split()[0] != "note"]  # on a busy machine
    assert labels == [
        "model",
        "target",
        "calibrate",
        "realise",
        "compile",
        "bundle",
        "segment",
        "agreement",
        "picture",
        "next:",
    ]
    photo, picture = (np.asarray(Image.open(demonstrated.folder / name)) for name in ("coins.png", "demo.png"))
    assert photo.shape == picture.shape and (photo != picture).any()
    assert not run_cli("verify", demonstrated.bundle).returncode
