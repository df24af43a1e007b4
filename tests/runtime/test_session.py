"""A compiled module runs through tvm_ffi alone: results, threads, errors."""

from __future__ import annotations

import dataclasses
import gc
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tvm_ahcq.errors import BundleError, DeviceError
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.models.sam.golden import compare, golden_pair
from tvm_ahcq.models.sam.image import ResizeLongestSide, preprocess
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
from tvm_ahcq.runtime.manifest import FunctionSpec
from tvm_ahcq.runtime.session import ALIGNMENT, Session, to_tensor
from tvm_ahcq.runtime.weights import expand


@pytest.fixture
def path(tmp_path, manifest, tensors, tiny_library):
    write_bundle(tmp_path / "tiny.ahcq", manifest, tiny_library, tensors)
    return tmp_path / "tiny.ahcq"


@pytest.fixture
def session(path):
    return Session(read_bundle(path), num_threads=2)


@pytest.fixture
def image():
    return np.random.default_rng(1).standard_normal((1, 3, 32, 32)).astype(np.float32)


def test_encoding_takes_raw_parameters(session, image, tensors):
    patches = image.reshape(1, 3, 2, 16, 2, 16).mean(axis=(3, 5))
    expected = np.einsum("bchw,cd->bdhw", patches, tensors["image_encoder.weight"])
    np.testing.assert_allclose(SamFunctions(session).encode(image), expected, atol=1e-6)


def test_decoding_takes_expanded_weights_for_any_number_of_prompts(session, image, tensors):
    embedding = SamFunctions(session).encode(image)
    constant = sum(array.astype(np.float64).sum() for array in expand(tensors["decoder.lin.weight"]))
    rng = np.random.default_rng(2)
    for batch, points in ((1, 1), (3, 2), (2, 7)):
        coords = rng.uniform(0, 32, (batch, points, 2)).astype(np.float32)
        labels = rng.integers(-1, 4, (batch, points)).astype(np.float32)
        masks, iou = SamFunctions(session).decode(embedding, coords, labels)
        assert masks.shape == (batch, 4, 8, 8) and iou.shape == (batch, 4)
        np.testing.assert_allclose(masks[:, 3, 7, 7], coords.sum(axis=(1, 2)) + embedding.sum(), rtol=1e-5)
        np.testing.assert_allclose(iou[:, 0], labels.sum(axis=1) + constant, rtol=1e-4)


def test_a_mask_alone_is_a_prompt_without_tokens(session, image):
    mask = np.random.default_rng(3).standard_normal((2, 1, 8, 8)).astype(np.float32)
    masks, iou = SamFunctions(session).decode(
        SamFunctions(session).encode(image), np.zeros((2, 0, 2)), np.zeros((2, 0)), mask
    )
    np.testing.assert_array_equal(masks, np.broadcast_to(mask, (2, 4, 8, 8)))
    np.testing.assert_array_equal(iou, 0)


def test_outputs_belong_to_the_caller(session, image):
    first = SamFunctions(session).encode(image)
    kept = first.copy()
    SamFunctions(session).encode(image * 2)
    np.testing.assert_array_equal(first, kept)
    first += 1


def test_tensors_are_aligned_whatever_the_array():
    whole = np.arange(1000, dtype=np.float32)
    for offset in range(1, 20, 3):
        view = whole[offset : offset + 600].reshape(20, 30).T
        tensor = to_tensor(view)
        again = np.from_dlpack(tensor)
        assert again.ctypes.data % ALIGNMENT == 0
        np.testing.assert_array_equal(again, view)


def test_neither_torch_nor_the_compiler_is_imported(path, image, run_alone, tmp_path):
    np.save(tmp_path / "image.npy", image)
    source = """
        import numpy as np
        from tvm_ahcq.runtime.bundle import read_bundle
        from tvm_ahcq.models.sam.functions import SamFunctions
        from tvm_ahcq.runtime.session import Session
        session = Session(read_bundle(sys.argv[1]))
        np.save(sys.argv[2] + "/embedding.npy", SamFunctions(session).encode(np.load(sys.argv[2] + "/image.npy")))
        print(sorted({"tvm", "torch", "torchvision"} & {name.split(".")[0] for name in sys.modules}))
    """
    assert run_alone(source, str(path), str(tmp_path)) == "[]\n"
    expected = SamFunctions(Session(read_bundle(path))).encode(image)
    np.testing.assert_array_equal(np.load(tmp_path / "embedding.npy"), expected)


def test_torch_can_be_imported_after_the_session(path):
    """tvm_ffi was loaded while torch was hidden: that must leave no trace."""
    import subprocess
    import sys

    source = """
import sys, numpy as np
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.runtime.session import Session
session = Session(read_bundle(sys.argv[1]))
assert "torch" not in sys.modules
import torch, tvm
assert float(torch.ones(2, 2).sum()) == 4
SamFunctions(session).encode(np.ones((1, 3, 32, 32), np.float32))
print(tvm.runtime.tensor(np.ones(3, np.float32)).numpy().sum())
"""
    done = subprocess.run([sys.executable, "-c", source, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout == "3.0\n", done.stderr


def test_concurrent_callers_get_their_own_results(session):
    def encode(value):
        return SamFunctions(session).encode(np.full((1, 3, 32, 32), value, np.float32))

    alone = [encode(value) for value in range(8)]
    with ThreadPoolExecutor(4) as callers:
        for expected, found in zip(alone, callers.map(encode, range(8)), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_sessions_and_callers_share_one_worker_pool(path, image):
    sessions = [Session(read_bundle(path), num_threads=2) for _ in range(3)]
    SamFunctions(sessions[0]).encode(image)
    before = len(os.listdir("/proc/self/task"))
    for session in sessions:
        with ThreadPoolExecutor(1) as caller:
            caller.submit(SamFunctions(session).encode, image).result()
    for _ in range(100):  # the system takes a thread off its list some time after it has been joined
        if len(os.listdir("/proc/self/task")) <= before:
            break
        time.sleep(0.05)
    assert len(os.listdir("/proc/self/task")) <= before


def test_a_dropped_session_gives_its_library_back(path, image):
    def mapped():
        gc.collect()
        with open("/proc/self/maps") as maps:
            return sum("library.so" in line for line in maps)

    before = mapped()
    session = Session(read_bundle(path))
    embedding = SamFunctions(session).encode(image)
    assert mapped() > before
    del session
    assert mapped() == before
    assert np.isfinite(embedding).all()


def _encode_sum(session, image, queue):
    queue.put(float(SamFunctions(session).encode(image).sum()))


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_session_works_in_a_forked_child(session, image):
    expected = float(SamFunctions(session).encode(image).sum())
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_encode_sum, args=(session, image, queue))
    child.start()
    found = queue.get()
    child.join()
    assert found == expected


@pytest.mark.parametrize("threads", [0, -1, "many"])
def test_an_impossible_number_of_threads_is_refused(path, threads):
    with pytest.raises(DeviceError, match="expected a positive number of threads"):
        Session(read_bundle(path), num_threads=threads)


def test_the_environment_sets_the_number_of_threads(path, monkeypatch):
    monkeypatch.setenv("TVM_NUM_THREADS", "1")
    assert Session(read_bundle(path)).num_threads == 1


def test_a_library_that_cannot_be_loaded_is_refused(path, manifest, tensors):
    write_bundle(path, manifest, b"\x7fELF but not really", tensors)
    with pytest.raises(BundleError, match=r"tiny\.ahcq: its library cannot be loaded"):
        Session(read_bundle(path))


def test_a_function_that_the_library_lacks_is_named(path, manifest, tensors, tiny_library):
    functions = manifest.functions | {"track": FunctionSpec((), ())}
    write_bundle(path, dataclasses.replace(manifest, functions=functions), tiny_library, tensors)
    with pytest.raises(BundleError, match="no function track"):
        Session(read_bundle(path))


def test_wrong_input_shapes_are_refused_before_they_reach_compiled_code(session, image):
    with pytest.raises(ValueError, match=r"image has shape \(1, 3, 32, 31\), expected \(1, 3, 32, 32\)"):
        SamFunctions(session).encode(image[..., 1:])
    with pytest.raises(ValueError, match="mask_input"):
        SamFunctions(session).decode(
            SamFunctions(session).encode(image), np.zeros((1, 1, 2)), np.zeros((1, 1)), np.zeros((1, 1, 4, 4))
        )


def test_the_golden_pair_passes_here_and_fails_with_other_weights(path, manifest, tensors, tiny_library, session):
    picture = np.random.default_rng(5).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    coords, labels = np.array([[[3, 4], [0, 0]]], np.float32), np.array([[1, -1]], np.float32)
    golden = golden_pair(session, picture, coords, labels)
    assert golden["image"].shape == (21, 32, 3)
    write_bundle(path, manifest, tiny_library, tensors, golden)
    checks = Session(read_bundle(path)).verify()
    assert len(checks) == 3 and all(check.passed for check in checks)
    tensors["image_encoder.weight"] = tensors["image_encoder.weight"] * 1.1
    write_bundle(path, manifest, tiny_library, tensors, golden)
    with pytest.raises(BundleError, match=r"embedding, relative error 0\.1.*NOT within 0\.02"):
        Session(read_bundle(path)).verify()


def test_a_golden_picture_smaller_than_the_model_is_kept_as_it_is_and_resized_to_check(session):
    picture = np.random.default_rng(0).integers(0, 256, (5, 8, 3), dtype=np.uint8)
    coords, labels = np.zeros((1, 2, 2), np.float32), np.ones((1, 2), np.float32)
    golden = golden_pair(session, picture, coords, labels)
    np.testing.assert_array_equal(golden["image"], picture)
    resized = ResizeLongestSide(session.model.image_size).apply_image(picture)
    expected = SamFunctions(session).encode(preprocess(resized.transpose(2, 0, 1)[None], session.model))
    np.testing.assert_array_equal(golden["embedding"], expected.astype(np.float16))
    assert all(check.passed for check in compare(session, golden))
    other = compare(session, golden | {"image": 255 - picture})
    assert not other[0].passed


def test_what_comes_back_goes_in_again_without_a_copy(session, image):
    embedding = SamFunctions(session).encode(image)
    assert to_tensor(embedding).data_ptr() == embedding.ctypes.data


@pytest.mark.parametrize("grid, kept", [(64, 8), (56, 8), (20, 10), (17, 17), (8, 8), (4, 4)])
def test_a_golden_pair_keeps_an_even_choice_of_a_large_embedding(manifest, grid, kept):
    class Other:
        """A model with a large embedding."""

        model = dataclasses.replace(manifest.model, grid=grid, image_size=16 * grid)

        def __init__(self, wrong=()):
            self.embedding = np.random.default_rng(0).normal(size=(1, 2, grid, grid)).astype(np.float32)
            self.embedding[(..., *wrong)] += 1 if wrong else 0

        def run(self, name, *inputs):
            if name == "encode_image":
                return (self.embedding,)
            return np.ones((1, 4, 2, 2), np.float32), np.ones((1, 4), np.float32)

    prompt = np.zeros((1, 1, 2), np.float32), np.ones((1, 1), np.float32)
    golden = golden_pair(Other(), np.zeros((8, 8, 3), np.uint8), *prompt)
    assert golden["embedding"].shape == (1, 2, kept, kept)
    assert all(check.passed for check in compare(Other(), golden))
    assert all(check.passed for check in compare(Other(), golden | {"embedding": Other().embedding}))  # older bundles
    assert not compare(Other((slice(None), slice(grid // 2))), golden)[0].passed


def test_a_bundle_without_a_golden_pair_cannot_be_verified(session):
    with pytest.raises(BundleError, match="no golden pair"):
        session.verify()
