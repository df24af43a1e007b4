"""A compiled model on CPU and accelerator: the same results, clear errors, and a host that can take over."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.api import QuantizedModel
from tvm_ahcq.cli.main import main
from tvm_ahcq.codegen.devices.mock_board import MockBoard
from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.errors import AhcqError, DeviceError
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.runtime.accelerator import DeviceOptions
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle
from tvm_ahcq.runtime.session import Session


@pytest.fixture(scope="module")
def qmodel(accelerated) -> QuantizedModel:
    return accelerated.qmodel


@pytest.fixture(scope="module")
def image(accelerated) -> np.ndarray:
    return accelerated.image


@pytest.fixture(scope="module")
def bundles(accelerated) -> tuple[Path, Path]:
    """A bundle that says it is for the host alone, which is never run, and one for host and accelerator."""
    return accelerated.host, accelerated.both


def encode(path: Path, image: np.ndarray, **options) -> tuple[np.ndarray, Session]:
    session = Session(read_bundle(path), device=DeviceOptions(**options) if options else None)
    return SamFunctions(session).encode(image), session


@pytest.fixture(scope="module")
def expected(bundles, image) -> np.ndarray:
    return encode(bundles[1], image)[0]


def test_host_and_accelerator_together_equal_the_simulation_in_every_bit_as_the_host_alone_does(
    qmodel, image, expected
):
    assert np.array_equal(expected, SamFunctions(qmodel.fake_quant_predictor().session).encode(image))


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
    code = (
        f"import sys; sys.path[:0] = {[entry for entry in sys.path if entry]!r}; import numpy as np, tvm_ahcq; "
        "from tvm_ahcq.models.sam.functions import SamFunctions; "
        f"p = tvm_ahcq.load({str(bundles[1])!r}, device='fsim'); "
        f"image = np.load({str(tmp_path / 'image.npy')!r}); "
        f"np.save({str(tmp_path / 'found.npy')!r}, SamFunctions(p.session).encode(image)); "
        "print(sorted({'torch', 'tvm', 'tvm_ahcq.api'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
    assert np.array_equal(np.load(tmp_path / "found.npy"), expected)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gpu", "No accelerator is called 'gpu'"),
        ("board:/dev/absent,/dev/absent", "/dev/absent"),
        ("fsim:ecp5_16x16", "ecp5_16x16"),
        ("fsim:abacus", "abacus"),
    ],
)
def test_a_wrong_or_absent_device_is_a_clear_error(bundles, image, name, message):
    with pytest.raises(DeviceError, match=message):
        encode(bundles[1], image, name=name)


def test_a_program_that_takes_too_long_is_an_error_and_the_session_lives(bundles, image, expected):
    session = Session(read_bundle(bundles[1]), device=DeviceOptions(seconds=1e-9))
    with pytest.raises(DeviceError, match=r"still ran|still runs"):
        SamFunctions(session).encode(image)
    other = Session(read_bundle(bundles[1]))
    assert np.array_equal(SamFunctions(other).encode(image), expected)


def test_a_device_that_hangs_is_an_error_in_time_and_the_next_call_opens_it_anew(bundles, image):
    session = Session(read_bundle(bundles[1]), device=DeviceOptions("fsim:sim_4x4,hang=2", seconds=0.3))
    for _ in range(2):  # the second program of each opening does not end
        with pytest.raises(DeviceError, match=r"still runs after 0\.3 s; the device was reset"):
            SamFunctions(session).encode(image)


def test_the_host_takes_over_from_a_device_that_hangs_with_equal_results(bundles, image, expected, capfd):
    found, session = encode(bundles[1], image, name="fsim:sim_4x4,hang=3", on_error="host", seconds=0.3)
    assert np.array_equal(found, expected)
    printed = capfd.readouterr().err
    assert printed.count("going on with the functional simulator") == 1 and "still runs after 0.3 s" in printed
    assert all(each.calls for each in session.accelerator.counters() if "encode" in each.symbol)


def test_a_board_that_neither_ends_nor_resets_is_an_error(bundles, image, tmp_path):
    memory = Session(read_bundle(bundles[1])).accelerator.memory_bytes
    with MockBoard(tmp_path, named("sim_4x4"), -(-memory // 4096) * 4096, seconds=4) as board:
        session = Session(read_bundle(bundles[1]), device=DeviceOptions(board.device_name, seconds=0.2))
        with pytest.raises(DeviceError, match=r"still runs after 0\.2 s; the device does not answer a reset either"):
            SamFunctions(session).encode(image)


def test_a_board_runs_all_functions_of_a_bundle_and_of_two_sessions(bundles, image, expected, tmp_path):
    memory = 3 * Session(read_bundle(bundles[1])).accelerator.memory_bytes // 4096 * 4096
    picture = np.random.default_rng(5).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    near = ahcq.load(bundles[1])
    near.set_image(picture)
    wanted = near.predict(np.array([[40, 30]]), np.array([1]))
    with MockBoard(tmp_path, named("sim_4x4"), memory) as board:
        far = ahcq.load(bundles[1], device=board.device_name)
        for _ in range(2):  # programs of decode do not overwrite those of encode_image
            far.set_image(picture)
            for found, want in zip(far.predict(np.array([[40, 30]]), np.array([1])), wanted, strict=True):
                np.testing.assert_array_equal(found, want)
        other = Session(read_bundle(bundles[1]), device=DeviceOptions(board.device_name))
        np.testing.assert_array_equal(SamFunctions(other).encode(image), expected)
        far.set_image(picture)
        np.testing.assert_array_equal(far.get_image_embedding(), near.get_image_embedding())


def test_a_board_that_another_process_uses_is_refused(bundles, tmp_path):
    with MockBoard(tmp_path, named("sim_4x4"), 1 << 20) as board, board.registers.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(DeviceError, match="in use already"):
            Session(read_bundle(bundles[1]), device=DeviceOptions(board.device_name))


def rewritten(path: Path, change: Callable[[bytearray, int], None], to: Path) -> Path:
    """The bundle with its programs changed, all digests of the file right; `change` gets them and where code begins."""
    bundle = read_bundle(path)
    libraries = {}
    for name, library in bundle.libraries.items():
        start = library.index(b"AHCQACC\0")
        programs = bytearray(library[start:])
        change(programs, 16)
        libraries[name] = library[:start] + bytes(programs)
    write_bundle(to, bundle.manifest, libraries, dict(bundle.tensors), bundle.golden)
    return to


def test_a_bundle_with_damaged_programs_is_refused_when_it_is_loaded(bundles, tmp_path):
    def flip(programs: bytearray, start: int) -> None:
        programs[start + 5000] ^= 1

    with pytest.raises(DeviceError, match=r"programs for the accelerator cannot be used: they are damaged; compile"):
        Session(read_bundle(rewritten(bundles[1], flip, tmp_path / "damaged.ahcq")))


def test_a_program_that_is_none_but_whole_ends_with_the_name_of_the_devices_error(bundles, image, tmp_path):
    session = Session(read_bundle(bundles[1]))
    symbol = next(each.symbol for each in session.accelerator.counters() if "encode_image" in each.symbol)
    program = session.accelerator.program(symbol)

    def clear_an_instruction(programs: bytearray, start: int) -> None:
        (stored,) = struct.unpack_from("<I", programs, 12)
        checksum, end = 0, start
        while checksum != stored or end == start:  # where the programs end is not written down
            checksum, end = zlib.crc32(programs[end : end + 1], checksum), end + 1
        at = programs.index(program)
        programs[at + 32 : at + 64] = bytes(32)
        struct.pack_into("<I", programs, 12, zlib.crc32(programs[start:end]))

    wrong = Session(read_bundle(rewritten(bundles[1], clear_an_instruction, tmp_path / "wrong.ahcq")))
    with pytest.raises(DeviceError, match="the program ended with illegal_opcode at instruction 1 of"):
        SamFunctions(wrong).encode(image)


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
    assert "image_encoder.blocks.0.attn.qkv" in printed and "number of points" in printed
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
