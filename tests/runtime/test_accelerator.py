"""A compiled model on CPU and accelerator: the same results, clear errors, and a host that can take over."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.cli.main import main
from tvm_ahcq.compiler import QuantizedModel
from tvm_ahcq.errors import AhcqError, DeviceError
from tvm_ahcq.runtime.accelerator import DeviceOptions
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.session import Session

pytestmark = pytest.mark.skipif(
    not any((Path(entry) / "lib" / "libtvm_ahcq.so").is_file() for entry in ahcq.__path__),
    reason="runtime library not built: install the package, or build it into the tree (CONTRIBUTING.md)",
)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(1, 3, 128, 128)).astype(np.float32)


@pytest.fixture(scope="module")
def qmodel(make_tiny_model) -> QuantizedModel:
    rng = np.random.default_rng(1)
    pictures = [np.kron(rng.integers(0, 255, (8, 8, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(2)]
    return ahcq.quantize(make_tiny_model(1), pictures)


@pytest.fixture(scope="module")
def bundles(qmodel, tmp_path_factory) -> tuple[Path, Path]:
    """A bundle that says it is for the host alone, which is never run, and one for host and accelerator."""
    folder = tmp_path_factory.mktemp("bundles")
    host, both = folder / "host.ahcq", folder / "both.ahcq"
    compiled = ahcq.compile(qmodel, target="generic", accelerator="sim_4x4", offload="all")
    compiled.save(both)
    replace(compiled, manifest=replace(compiled.manifest, accelerator=None)).save(host)
    return host, both


def encode(path: Path, image: np.ndarray, **options) -> tuple[np.ndarray, Session]:
    session = Session(read_bundle(path), device=DeviceOptions(**options) if options else None)
    return session.encode(image), session


@pytest.fixture(scope="module")
def expected(bundles, image) -> np.ndarray:
    return encode(bundles[1], image)[0]


def test_host_and_accelerator_together_equal_the_simulation_in_every_bit_as_the_host_alone_does(
    qmodel, image, expected
):
    assert np.array_equal(expected, qmodel.fake_quant_predictor().session.encode(image))


def test_the_device_counts_what_it_did(bundles, image):
    _, session = encode(bundles[1], image, name="fsim")
    report = session.manifest.accelerator
    symbols = {place["symbol"]: place for place in report["places"] if place["function"] == "encode_image"}
    ran = [each for each in session.accelerator.counters() if each.calls]
    assert {each.symbol for each in ran} == {symbol for symbol in symbols if symbol}
    for each in ran:
        estimate = symbols[each.symbol]["cycles"]
        assert 0.85 * estimate < each.counters["cycles"] < 1.15 * estimate, each.symbol
    assert "sim_4x4" in session.accelerator.device


def test_a_fresh_process_without_compiler_or_torch_runs_it(bundles, image, expected, tmp_path):
    np.save(tmp_path / "image.npy", image)
    code = (f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}; import numpy as np, tvm_ahcq; "
            f"p = tvm_ahcq.load({str(bundles[1])!r}, device='fsim'); "
            f"np.save({str(tmp_path / 'found.npy')!r}, p.session.encode(np.load({str(tmp_path / 'image.npy')!r}))); "
            "print(sorted({'torch', 'tvm', 'tvm_ahcq.compiler'} & set(sys.modules)))")  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), expected)


@pytest.mark.parametrize(("name", "message"), [
    ("gpu", "No accelerator is called 'gpu'"),
    ("board:/dev/absent,/dev/absent", "/dev/absent"),
    ("fsim:ecp5_16x16", "ecp5_16x16"),
    ("fsim:abacus", "abacus"),
])  # fmt: skip
def test_a_wrong_or_absent_device_is_a_clear_error(bundles, image, name, message):
    with pytest.raises(DeviceError, match=message):
        encode(bundles[1], image, name=name)


def test_a_program_that_takes_too_long_is_an_error_and_the_session_lives(bundles, image, expected):
    session = Session(read_bundle(bundles[1]), device=DeviceOptions(seconds=1e-9))
    with pytest.raises(DeviceError, match=r"still ran|still runs"):
        session.encode(image)
    other = Session(read_bundle(bundles[1]))
    assert np.array_equal(other.encode(image), expected)


def test_the_host_takes_over_from_a_device_that_fails_with_equal_results(bundles, image, expected, capfd):
    found, session = encode(bundles[1], image, name="board:/dev/absent,/dev/absent", on_error="host")
    assert np.array_equal(found, expected)
    assert capfd.readouterr().err.count("going on with the functional simulator") == 1
    assert "fsim" in session.accelerator.device


def test_a_device_for_a_bundle_without_accelerator_is_refused(bundles):
    with pytest.raises(DeviceError, match="runs on the host alone"):
        ahcq.load(bundles[0], device="fsim")
    with pytest.raises(DeviceError, match="on_device_error"):
        ahcq.load(bundles[1], device="fsim", on_device_error="panic")


def test_an_accelerator_needs_a_quantized_model(make_tiny_model):
    with pytest.raises(AhcqError, match="quantize"):
        ahcq.compile(make_tiny_model(1), accelerator="sim_4x4")
    with pytest.raises(DeviceError, match="abacus"):
        ahcq.compile(make_tiny_model(1), accelerator="abacus")


def test_info_shows_what_went_where_and_disasm_lists_it(bundles, capsys):
    assert main(["info", str(bundles[1])]) == 0
    printed = capsys.readouterr().out
    assert "CPU and accelerator sim_4x4" in printed and "why on the host" in printed
    assert "image_encoder.blocks.0.attn.qkv" in printed and "number of prompts" in printed
    assert main(["disasm", str(bundles[1])]) == 0
    assert "image_encoder.blocks.0.attn.qkv" in capsys.readouterr().out
    assert main(["disasm", str(bundles[1]), "blocks.0.attn.qkv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[1:3] != [] and lines[-1].endswith("finish")
    assert main(["disasm", str(bundles[1]), "attn"]) == 2
    assert main(["disasm", str(bundles[0])]) == 2
    assert "host alone" in capsys.readouterr().err


def test_profile_shows_the_cycles_of_each_offloaded_operator_and_draws_its_roofline(bundles, capsys, tmp_path):
    options = ["--device", "fsim", "--repeats", "1", "--roofline", str(tmp_path / "roofline.svg")]
    assert main(["profile", str(bundles[1]), *options]) == 0
    printed = capsys.readouterr().out
    drawn = (tmp_path / "roofline.svg").read_text()
    assert "image_encoder.blocks.1.mlp.lin2" in drawn and "array: 16 a cycle" in drawn
    assert "fsim (sim_4x4)" in printed and "image_encoder.blocks.1.mlp.lin2" in printed
    assert "M cycles, the array busy in" in printed


def test_verify_runs_the_golden_pair_on_the_device(bundles, capsys):
    assert main(["verify", str(bundles[1]), "--device", "fsim"]) == 0
    assert "golden" in capsys.readouterr().out
