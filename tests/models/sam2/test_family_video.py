"""The memory of SAM 2 from calibration to a bundle: every layer has a role, results are the simulation's."""

from __future__ import annotations

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.clips import generate
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.exchanges import exchanges
from tvm_ahcq.models.sam2.functions import MEMORY_FUNCTIONS
from tvm_ahcq.models.sam2.timing import example_inputs
from tvm_ahcq.quantizers.weight.equalise import apply_equalisation
from tvm_ahcq.relay_passes.coverage import coverage
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.kernel_check import verify_kernels
from tvm_ahcq.runtime.offload import ACCELERATOR, OffloadReport
from tvm_ahcq.runtime.session import Session
from tvm_ahcq.torch_exec.torch_session import TorchSession


@pytest.fixture(scope="module")
def qmodel(tiny_tracker) -> QuantizedModel:
    """What was compiled."""
    return tiny_tracker.qmodel


def test_every_linear_layer_and_attention_of_the_memory_is_a_site(qmodel: QuantizedModel) -> None:
    report = coverage(qmodel.annotated, qmodel.table.recipe, qmodel.model.family)
    assert report.missing == ()
    of_memory = [entry for entry in report.entries if entry.function in MEMORY_FUNCTIONS]
    in_float = {entry.name for entry in of_memory if entry in report.float_layers}
    parts = ("mask_downsampler", "dwconv", "obj_ptr_tpos_proj", "mask_downsample")
    assert all(any(part in name for part in parts) for name in in_float)
    # two layers of 9 linear layers and of 2 attentions with 4 sites each; to encode memories, 2 and 2 blocks of 2
    assert (
        sum(entry.operator == "ahcq.linear" for entry in of_memory if entry.name not in in_float) == 2 * 9 + 2 + 2 * 2
    )
    assert qmodel.sites == (116 + 2 * (9 + 2 * 4) + 2 + 2 * 2,) * 2


def memory_inputs(session: SessionLike, count: int, pointers: int) -> dict[str, tuple[np.ndarray, ...]]:
    spec = session.model
    inputs = {name: example_inputs(spec, name, 2) for name in MEMORY_FUNCTIONS}
    tokens, memories, slots, tokens_of_objects, distances = inputs["attend_memory"]
    kept = slice(count), slice(pointers)
    inputs["attend_memory"] = tokens, memories[kept[0]], slots[kept[0]], tokens_of_objects[kept[1]], distances[kept[1]]
    return inputs


@pytest.mark.parametrize("device", ["host", "fsim"])
def test_compiled_results_are_the_simulations(qmodel: QuantizedModel, tiny_tracker, device: str) -> None:
    bundle = read_bundle(tiny_tracker.host if device == "host" else tiny_tracker.both)
    session, simulated = Session(bundle), qmodel.fake_quant_session()
    for count, pointers in ((1, 0), (3, 2), (7, 16)):
        for name, inputs in memory_inputs(session, count, pointers).items():
            for mine, expected in zip(session.run(name, *inputs), simulated.run(name, *inputs), strict=True):
                np.testing.assert_allclose(mine, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    assert all(check.passed for check in session.verify())


def test_every_kernel_agrees_with_its_reference(tiny_tracker) -> None:
    session = Session(read_bundle(tiny_tracker.host))
    report = verify_kernels(session)
    table = session.manifest.kernels[session.target.name]
    assert {kind.kind for kind in report.kinds} == {described["kind"] for described in table.values()}
    assert report.not_run == () and sum(len(kind.symbols) for kind in report.kinds) == len(table)


def test_a_clip_is_tracked_with_the_accelerator_as_without_in_every_bit(tiny_tracker) -> None:
    found = []
    for path in (tiny_tracker.host, tiny_tracker.both):
        predictor = ahcq.load_video(path)
        state = predictor.init_state(generate(3, 3, 128).frames)
        predictor.add_new_points_or_box(state, 0, "box", box=[20, 30, 90, 100])
        predictor.add_new_points_or_box(state, 0, "click", points=[[60, 50]], labels=[1])
        found.append([logits for _, _, logits in predictor.propagate_in_video(state)])
    assert len(found[0]) == 3
    np.testing.assert_array_equal(*found)


def test_every_product_is_offloaded_or_has_a_reason(tiny_tracker) -> None:
    report = OffloadReport.from_dict(read_bundle(tiny_tracker.both).manifest.accelerator)
    frame = [each for each in report.of("attend_frame") if each.macs]
    assert len(frame) == 5 and all(each.where == ACCELERATOR for each in frame)
    memory = {each.name: each for each in report.of("attend_memory") if each.macs}
    assert memory["memory_attention.layers.0.cross_attn_image.k_proj"].where == ACCELERATOR
    assert "number of memories" in memory["memory_attention.layers.0.cross_attn_image"].reason
    assert all(each.reason for each in report.decisions if each.where != ACCELERATOR)


def test_rescaled_channels_of_the_memory_compute_the_same(video_model: FloatModel) -> None:
    places = [place for place in exchanges(video_model.params) if place.name.startswith("memory")]
    assert len(places) == 2 * (2 + 1 + 1 + 2 + 1) + 2
    rng, changes = np.random.default_rng(0), {}
    for place in places:
        changes[place.name] = np.tile(np.exp(rng.normal(0, 1, place.channels // place.heads)), place.heads)
    changed = apply_equalisation(video_model.params, changes, places)
    sessions = [TorchSession(video_model.spec, video_model.module, params) for params in (video_model.params, changed)]
    for name, inputs in memory_inputs(sessions[0], 3, 2).items():
        for plain, other in zip(*(session.run(name, *inputs) for session in sessions), strict=True):
            np.testing.assert_allclose(other, plain, rtol=0, atol=2e-4 * np.abs(plain).max())
