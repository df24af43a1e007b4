"""Processes that take turns, and what becomes of those that cannot run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.bench.peers import PEERS
from tvm_ahcq.bench.runner import PeerFailed, PeerResult, Worker, compare, encoder_macs
from tvm_ahcq.bench.task import EMBEDDING, STAGES, VIDEO_STAGES, Task, stages_of
from tvm_ahcq.errors import BenchmarkError

TORCH = next(peer for peer in PEERS if peer.name == "torch float32")


def result(name: str, *rounds: list[float]) -> PeerResult:
    """Made of the rounds of one stage."""
    return PeerResult(name, 0, {"encode": [list(calls) for calls in rounds]})


def test_the_ratio_compares_turns_of_the_same_round() -> None:
    ours, slowed = result("a", [1, 1.5], [10, 11], [2, 2]), result("b", [3, 2], [20], [5])
    assert slowed.ratio("encode", ours) == 2.0  # 2, 2 and 2.5: whatever slows a round down slows both
    assert (ours.least("encode"), ours.median("encode")) == (1, 2)


def test_a_process_times_its_peer_and_tells_its_memory(task: Task) -> None:
    with Worker(TORCH, task, "serve") as worker:
        opened = worker.answer()
        found = {stage: worker.run(stage, 2) for stage in STAGES}
    assert opened["load"] > 0 and opened["memory"] > 50e6
    assert all(len(each["seconds"]) == 2 and min(each["seconds"]) > 0 for each in found.values())
    assert min(found["whole"]["seconds"]) > 0.9 * min(found["decode"]["seconds"])
    assert np.load(task.peer_folder(TORCH.name) / EMBEDDING).shape == (1, task.model.prompt_dim, 16, 16)


def test_frames_of_a_video_are_timed_with_one_object_and_with_eight(video_task: Task) -> None:
    with Worker(TORCH, video_task, "serve") as worker:
        worker.answer()
        found = {stage: min(worker.run(stage, 2)["seconds"]) for stage in stages_of(video_task.model)}
    assert set(VIDEO_STAGES) < set(found)
    assert found["memory"] < found["frame"] < found["frame8"] < 8 * found["frame"]


def test_what_a_peer_raises_is_told_by_its_process(task: Task) -> None:
    refusal = r"BundleError.*not an \.ahcq bundle"
    with Worker(PEERS[0], task, "serve") as worker, pytest.raises(PeerFailed, match=refusal):
        worker.answer()


def test_a_process_that_dies_is_told_from_one_that_answers(task: Task) -> None:
    with Worker(TORCH, task, "serve") as worker:
        worker.answer()
        worker.process.kill()
        with pytest.raises(PeerFailed, match=r"status -9.*\.log"):
            worker.run("encode", 1)


def test_a_comparison_without_ours_is_refused(task: Task) -> None:
    with pytest.raises(BenchmarkError, match=r"damaged\.ahcq cannot be run.*not an \.ahcq bundle"):
        compare(task, PEERS[:1], "generic", 1)


def test_macs_are_those_of_the_layers(task: Task) -> None:
    from tvm_ahcq.models.sam.load import build_module

    encoder = build_module("vit_t").image_encoder
    tokens = (encoder.img_size // 16) ** 2
    linear = sum(p.numel() for name, p in encoder.named_parameters() if p.ndim in (2, 4) and "rel_pos" not in name)
    linear -= encoder.pos_embed.numel()  # what is left multiplies every token; windows pad some, attention comes on top
    assert tokens * linear <= encoder_macs(task.model) < 2 * tokens * linear


def test_preparing_tells_the_files_that_hold_the_weights(task: Task) -> None:
    with Worker(TORCH, task, "prepare") as worker:
        (path,) = worker.answer()["files"]
    assert Path(path).suffix == ".safetensors" and worker.log.parent == task.folder
