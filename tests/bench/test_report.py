"""The table of a comparison."""

from __future__ import annotations

from dataclasses import replace

from tvm_ahcq.bench.report import STAGE_TITLES, header, markdown, rows, summary
from tvm_ahcq.bench.runner import Comparison, PeerResult
from tvm_ahcq.bench.task import STAGES, VIDEO_STAGES, Task


def measured(name: str, factor: float) -> PeerResult:
    """Two rounds: the second one of a busy machine."""
    times = {"encode": 1.0, "decode": 0.02, "whole": 1.2}
    seconds = {stage: [[factor * times[stage]], [4 * factor * times[stage]]] for stage in STAGES}
    return PeerResult(name, 50_000_000, seconds, 0.5, 900_000_000, 0.987654)


def comparison(task: Task, peaks: list[float]) -> Comparison:
    skipped = {"OpenVINO float32": "not installed: openvino"}
    return Comparison(task, [measured("tvm-ahcq", 1), measured("torch float32", 3)], skipped, peaks, 500 * 10**9)


def test_a_line_has_times_ratios_part_of_peak_memory_and_size(task: Task) -> None:
    found = comparison(task, [400e9, 600e9])
    ours, theirs = rows(found)
    assert len(ours) == len(theirs) == len(header(found))
    assert ours[:5] == ("tvm-ahcq", "1.00, 2.50 s", "1.00", "20.0, 50.0 ms", "1.00")
    assert theirs[1:3] == ("3.00, 7.50 s", "3.00")
    # 500 GMAC in 2.5 s, of a median peak of 500 GMAC/s
    assert ours[7:] == ("40%", "0.90 GB", "0.5 s", "50.0 MB", "0.9877")


def test_without_a_peak_loop_there_is_no_part_of_it(task: Task) -> None:
    found = comparison(task, [])
    assert rows(found)[0][7] == "" and not any("loop" in line for line in summary(found))


def test_the_summary_names_the_fastest_and_who_is_missing(task: Task) -> None:
    text = "\n".join(summary(comparison(task, [400e9, 600e9])))
    for words in (
        "vit_t at 256 x 256, 1 threads",
        "2 rounds",
        "500 GMAC in float",
        "400 to 600 GMAC/s",
        "Fastest other encoder: torch float32, 3.00 times",
        "Left out: OpenVINO float32 (not installed",
    ):
        assert words in text


def test_a_model_that_tracks_has_a_frame_of_one_and_of_eight_objects(task: Task, video_task: Task) -> None:
    found = comparison(task, [])
    for each, factor in zip(found.results, (1, 3), strict=True):
        each.seconds |= {
            stage: [[factor * time]] * 2 for stage, time in zip(VIDEO_STAGES, (1.0, 2.0, 9.0), strict=True)
        }
    found = replace(found, task=video_task)
    assert header(found)[7:13:2] == tuple(f"{STAGE_TITLES[stage]}: least, median" for stage in VIDEO_STAGES)
    assert all(len(row) == len(header(found)) for row in rows(found))
    text = "\n".join(summary(found))
    assert "memory attention is 50% of it, eight objects take 4.5 times as long as one" in text
    assert "Fastest other frame: torch float32, 3.00 times" in text


def test_markdown_has_a_line_for_each_runtime(task: Task) -> None:
    lines = markdown(comparison(task, [])).splitlines()
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ")] == [
        "| runtime",
        "| ---",
        "| tvm-ahcq",
        "| torch float32",
    ]
