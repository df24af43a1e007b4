"""Which runtimes are compared, and that those of one model compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tvm_ahcq.bench.peers import OURS, PEERS, Peer, choose
from tvm_ahcq.bench.task import Task
from tvm_ahcq.errors import BenchmarkError
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.load import build_module, read_state
from tvm_ahcq.models.sam.variants import EMBEDDED_WEIGHTS

CLICK = tuple[np.ndarray, np.ndarray]


def test_all_peers_run_where_none_are_named() -> None:
    assert choose(None) == PEERS and PEERS[0].name == OURS


@pytest.mark.parametrize(
    "names, chosen",
    [
        (["torch"], ["torch float32", "torch bfloat16"]),
        (["NNCF", "onnx runtime float32"], ["ONNX Runtime float32", "OpenVINO int8 NNCF"]),
        ([], []),
    ],
)
def test_ours_always_runs_beside_those_that_are_named(names: list[str], chosen: list[str]) -> None:
    assert [peer.name for peer in choose(names)] == [OURS, *chosen]


def test_an_unknown_peer_is_refused_with_the_names_that_there_are() -> None:
    with pytest.raises(BenchmarkError, match=r"'tensorrt'.*OpenVINO int8 NNCF"):
        choose(["torch", "tensorrt"])


def test_a_peer_says_which_packages_it_lacks() -> None:
    assert Peer("x", ("numpy", "surely_absent"), "ahcq_peer", "").missing() == ["surely_absent"]


def test_torch_in_float32_is_the_upstream_model(task: Task, model_input: np.ndarray, prompt: CLICK) -> None:
    sam = build_module("vit_t")
    sam.load_state_dict(read_state(EMBEDDED_WEIGHTS, "vit_t"), assign=True)
    session = next(peer for peer in PEERS if peer.name == "torch float32").open(task)
    embedding = SamFunctions(session).encode(model_input)
    with torch.no_grad():
        expected = sam.image_encoder(torch.from_numpy(model_input))
        click = tuple(torch.from_numpy(array[:, :1]) for array in prompt)
        sparse, dense = sam.prompt_encoder(click, None, None)
        position = sam.prompt_encoder.get_dense_pe()
        masks, _ = sam.mask_decoder(torch.from_numpy(embedding), position, sparse, dense, multimask_output=True)
    np.testing.assert_allclose(embedding, expected.numpy(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        SamFunctions(session).decode(embedding, *prompt)[0][:, 1:], masks.numpy(), rtol=1e-3, atol=1e-3
    )


def test_torch_in_bfloat16_is_near_float32(task: Task, model_input: np.ndarray) -> None:
    exact, rough = (
        SamFunctions(next(peer for peer in PEERS if peer.name == f"torch {dtype}").open(task)).encode(model_input)
        for dtype in ("float32", "bfloat16")
    )
    assert 0 < np.linalg.norm(rough - exact) < 0.1 * np.linalg.norm(exact)


@pytest.mark.slow
@pytest.mark.parametrize("peer", PEERS[3:], ids=lambda peer: peer.name)
def test_exported_models_are_near_float32(peer: Peer, task: Task, model_input: np.ndarray, prompt: CLICK) -> None:
    if peer.missing():
        pytest.skip(f"not installed: {', '.join(peer.missing())}")
    reference = next(peer for peer in PEERS if peer.name == "torch float32").open(task)
    files, session = peer.prepare(task), peer.open(task)
    assert files and all(path.stat().st_size for path in files)
    assert peer.prepare(task) == files
    exact, found = SamFunctions(reference).encode(model_input), SamFunctions(session).encode(model_input)
    tolerance = 1e-4 if "32" in peer.name else 0.2
    assert np.linalg.norm(found - exact) < tolerance * np.linalg.norm(exact)
    masks, scores = SamFunctions(session).decode(exact, *prompt)
    expected = SamFunctions(reference).decode(exact, *prompt)[0]
    assert masks.shape == expected.shape and scores.shape == (1, 4)
    assert np.linalg.norm(masks - expected) < tolerance * np.linalg.norm(expected)
