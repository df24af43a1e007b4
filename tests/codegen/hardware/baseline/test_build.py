"""The FPGA flow on a floating-point core of two lanes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tvm_ahcq.codegen.hardware.baseline import build


def test_lanes_take_the_dsp_blocks_and_memories_that_they_say(tmp_path: Path) -> None:
    arguments = ["--format", "fp32", "--lanes", "2", "--dsps", "3", "--synthesis-only", "--out", str(tmp_path)]
    assert build.main(arguments) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    assert record["core"] == {"format": "fp32", "lanes": 2, "dsps": 3}
    assert record["cells"]["MULT18X18D"] == 2 * 3
    # sums and results of each lane, and two buffers of 64 bits
    assert record["cells"]["DP16KD"] == 2 * 2 + 2 * 2
    assert "fmax_mhz" not in record


def test_a_core_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build.main(["--lanes", "1000", "--out", str(tmp_path)]) == 1
    assert "2 .. 256 lanes" in capsys.readouterr().err
