"""The decoder on CPU and accelerator: any number of prompts and points, the masks of the host alone in every bit."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.cli.main import main
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.runtime.accelerator import DeviceOptions
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.device_profile import device_profile
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.session import Session

PROMPTS = [(1, 2, False), (3, 2, False), (2, 7, False), (1, 2, True), (3, 5, True), (2, 0, True)]
"""How many, points of each, and whether a mask goes with them."""


@pytest.fixture(scope="module")
def host(accelerated, tmp_path_factory) -> Path:
    """The same model compiled for the host alone."""
    path = tmp_path_factory.mktemp("host") / "host.ahcq"
    ahcq.compile(accelerated.qmodel, target="generic").save(path)
    return path


@pytest.fixture(scope="module")
def alone(host) -> Session:
    return Session(read_bundle(host))


def session_of(path: Path, **options) -> Session:
    return Session(read_bundle(path), device=DeviceOptions(**options) if options else None)


def inputs(prompts: int, points: int, masked: bool) -> list[np.ndarray]:
    rng = np.random.default_rng(prompts + 10 * points)
    given = [
        rng.normal(size=(1, 32, 8, 8)).astype(np.float32),
        rng.uniform(0, 128, (prompts, points, 2)).astype(np.float32),
        rng.integers(-1, 4, (prompts, points)).astype(np.float32),
    ]
    return [*given, rng.normal(size=(prompts, 1, 32, 32)).astype(np.float32)] if masked else given


def assert_equal(found, expected) -> None:
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("case", PROMPTS, ids=str)
def test_masks_are_the_hosts_in_every_bit_for_any_number_of_prompts_and_points(accelerated, alone, case):
    session = session_of(accelerated.both, name="fsim")
    assert_equal(SamFunctions(session).decode(*inputs(*case)), SamFunctions(alone).decode(*inputs(*case)))
    prompts, points, masked = case
    report = OffloadReport.from_dict(session.manifest.accelerator)
    own = report.offloaded("decode_mask" if masked else "decode")
    ran = {each.symbol: each.repeats for each in session.accelerator.counters() if each.calls}
    tokens = 5 + points  # 5 of the model
    assert {place.repeats for place in own} == {1, 5 + 2} and sum(place.batched for place in own) >= 7
    assert ran == {
        place.symbol: 1 if not place.batched else prompts if place.repeats == 1 else prompts * tokens for place in own
    }


def test_a_session_that_meets_other_numbers_of_prompts_goes_on_right(accelerated, alone):
    session = session_of(accelerated.both, name="fsim")
    for prompts in (3, 1, 2):
        assert_equal(
            SamFunctions(session).decode(*inputs(prompts, 2, False)),
            SamFunctions(alone).decode(*inputs(prompts, 2, False)),
        )


def test_a_predictor_makes_the_hosts_masks_of_points_boxes_and_earlier_masks(accelerated, host):
    picture = np.random.default_rng(5).integers(0, 255, (96, 120, 3)).astype(np.uint8)
    found = []
    for path, options in ((accelerated.both, {"device": "fsim"}), (host, {})):
        predictor = ahcq.load(path, **options)
        predictor.set_image(picture)
        point, box = (np.array([[40, 30]]), np.array([1])), np.array([10, 20, 90, 80])
        results = [
            predictor.predict(*point),
            predictor.predict(box=box),
            predictor.predict(np.array([[40, 30], [80, 60], [5, 5]]), np.array([1, 0, 1]), box=box),
        ]
        results.append(predictor.predict(*point, mask_input=results[0][2][:1]))
        found.append([array for result in results for array in result])
    assert_equal(*found)


def test_the_host_takes_over_from_a_device_that_hangs_between_prompts(accelerated, alone, capfd):
    session = session_of(accelerated.both, name="fsim:sim_4x4,hang=5", on_error="host", seconds=0.3)
    assert_equal(SamFunctions(session).decode(*inputs(3, 2, False)), SamFunctions(alone).decode(*inputs(3, 2, False)))
    assert capfd.readouterr().err.count("going on with the functional simulator") == 1


def test_the_profile_counts_the_work_of_all_prompts(accelerated):
    session = session_of(accelerated.both, name="fsim")
    found = {}
    for prompts in (1, 3):
        SamFunctions(session).decode(*inputs(prompts, 2, False))
        found[prompts] = {each.name: each for each in device_profile(session, "decode")}
    report = OffloadReport.from_dict(session.manifest.accelerator)
    for place in report.offloaded("decode"):
        one, three = (found[prompts][place.name] for prompts in (1, 3))
        times = 3 if place.batched else 1
        assert (one.macs, three.macs, three.transfer) == (place.macs, times * place.macs, times * place.bytes)
        runs = 3 if place.repeats > 1 else times  # programs of 64 rows, as a prompt has, or of 8, for 3 * 7 tokens
        assert three.cycles == runs * one.cycles
        assert 0.85 * one.cycles < one.estimate < 1.15 * one.cycles


def test_commands_show_run_and_list_operators_for_each_prompt(accelerated, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    bundle, name = str(accelerated.both), "mask_decoder.transformer.final_attn_token_to_image.v_proj"
    assert main(["info", bundle]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(re.search(rf"{name} +linear +accelerator +prompt ", line) is not None for line in lines) == 2
    assert not any(re.search(r"(linear|attention|matmul) x\d", line) for line in lines)
    assert main(["disasm", bundle]) == 0
    assert sum(name in line for line in capsys.readouterr().out.splitlines()) == 2
    assert main(["disasm", bundle, name]) == 2  # two functions have it
    assert f"decode/{name}, decode_mask/{name}" in capsys.readouterr().err
    assert main(["disasm", bundle, f"decode/{name}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("finish")
    cycles = {}
    for prompts in ("1", "3"):
        assert (
            main(
                ["profile", bundle, "--function", "decode", "--prompts", prompts, "--device", "fsim", "--repeats", "1"]
            )
            == 0
        )
        (line,) = (line for line in capsys.readouterr().out.splitlines() if f"{name} " in line and "linear" in line)
        cycles[prompts] = float(line.split()[3])
    assert cycles["3"] == pytest.approx(3 * cycles["1"], rel=0.1)
