"""The profiler counts the calls and the work that are there."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.errors import BundleError
from tvm_ahcq.evaluate.report.profile_plot import profile_plot
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
from tvm_ahcq.runtime.profiler import KernelTime, Profile, _summary, profile
from tvm_ahcq.runtime.session import Session


@pytest.fixture
def session(tmp_path, manifest, tensors, tiny_library) -> Session:
    write_bundle(tmp_path / "tiny.ahcq", manifest, tiny_library, tensors)
    return Session(read_bundle(tmp_path / "tiny.ahcq"), num_threads=1)


def test_kernels_are_found_and_take_part_of_the_time(session):
    image = np.random.default_rng(0).normal(size=(1, 3, 32, 32)).astype(np.float32)
    expected = SamFunctions(session).encode(image)
    found = profile(session, "encode_image", [image], repeats=2)
    assert found.kernels and 0 < sum(kernel.seconds for kernel in found.kernels) <= found.seconds
    assert all(kernel.calls >= 1 and kernel.bytes > 0 for kernel in found.kernels)
    seconds = [kernel.seconds for kernel in found.kernels]
    assert seconds == sorted(seconds, reverse=True)
    np.testing.assert_array_equal(SamFunctions(session).encode(image), expected)  # the session works as before


def test_a_function_that_is_not_there_is_named(session):
    with pytest.raises(BundleError, match="has no function 'fly'; it has encode_image, decode"):
        profile(session, "fly", [])


def test_work_is_counted_by_shape():
    """Two calls of one product, one of attention; the least time of two runs counts."""
    product = ("grouped_linear_3", ((10, 8), (1, 2, 16, 4), (2,), (1, 5), (1, 5), (5,), (10, 5)), 100)
    attention = ("log_attention_0", ((2, 7, 4), (2, 9, 4), (2, 9, 4), (2, 7, 4)), 50)
    runs = [
        [(*product, 1.0), (*attention, 3.0), (*product, 2.0)],
        [(*product, 1.5), (*attention, 4.0), (*product, 1.0)],
    ]
    first, second = _summary(runs)
    assert (first.kernel, first.calls, first.seconds, first.macs) == ("log_attention", 1, 3.0, 2 * 2 * 7 * 9 * 4)
    assert (second.kernel, second.calls, second.seconds, second.macs) == ("grouped_linear", 2, 2.5, 2 * 10 * 8 * 5)
    assert second.bytes == 200 and second.unit == "int8" and second.shape == "10 x 5 x 8"


def test_the_picture_tells_every_kernel_and_its_part_of_the_peak():
    kernels = [KernelTime("matmul", "matmul_0", "4 x 4 x 4", 1, 1e-3, 10**9, 64, "float32")]
    kernels += [KernelTime(f"copy{i}", f"copy{i}", "<8>", 1, 1e-4, 0, 64, "") for i in range(30)]
    drawn = profile_plot(Profile("decode", 5e-3, tuple(kernels)), {"float32": 2e12})
    assert drawn.startswith("<svg xmlns=") and "decode: 5 ms" in drawn
    assert "50% of peak" in drawn and "&lt;8&gt;" in drawn and "6 other kernels" in drawn
