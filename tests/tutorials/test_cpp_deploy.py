"""The C++ program of ``tutorials/cpp_deploy``: built as its README says, equal to Python in every bit."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.cli.main import main
from tvm_ahcq.models.sam.functions import SamFunctions
from tvm_ahcq.runtime.bundle import read_bundle
from tvm_ahcq.runtime.session import Session

SOURCES = Path(__file__).resolve().parents[2] / "tutorials" / "cpp_deploy"

pytestmark = pytest.mark.slow


def command(tool: str) -> str:
    """A tool of this environment, whether or not that is activated."""
    found = shutil.which(tool, path=str(Path(sys.executable).parent)) or shutil.which(tool)
    assert found, f"{tool} is not installed: it comes with the extra `test`"
    return found


@pytest.fixture(scope="module")
def program(runtime_library: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cpp_deploy")
    configure = [
        command("cmake"),
        "-S",
        str(SOURCES),
        "-B",
        str(folder),
        "-G",
        "Unix Makefiles",
        f"-DPython_EXECUTABLE={sys.executable}",
        f"-DTVM_AHCQ={runtime_library}",
    ]
    for line in (configure, [command("cmake"), "--build", str(folder)]):
        done = subprocess.run(line, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "run_encoder"


@pytest.fixture(scope="module")
def unpacked(accelerated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked") / "new"
    assert main(["unpack", str(accelerated.both), str(folder)]) == 0
    return folder


def run(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    # an empty environment: no PYTHONPATH, no LD_LIBRARY_PATH
    return subprocess.run([str(program), *map(str, arguments)], capture_output=True, text=True, env={})


def test_the_embedding_equals_pythons_in_every_bit(accelerated, program, unpacked, tmp_path):
    accelerated.image.tofile(tmp_path / "image.f32")
    done = run(program, unpacked, "--device", "fsim", "--image", tmp_path / "image.f32", "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    session = Session(read_bundle(accelerated.both))
    expected = SamFunctions(session).encode(accelerated.image)
    assert (tmp_path / "out").read_bytes() == expected.tobytes()
    assert f"crc32 {zlib.crc32(expected.tobytes()):08x}" in done.stdout
    cycles = sum(each.counters["cycles"] for each in session.accelerator.counters())
    assert f"device fsim (sim_4x4), {cycles} cycles" in done.stdout


def test_without_a_picture_it_takes_the_golden_one(accelerated, program, unpacked):
    done = run(program, unpacked)
    assert done.returncode == 0, done.stderr
    predictor = ahcq.load(accelerated.both)
    predictor.set_image(read_bundle(accelerated.both).golden["image"])
    assert f"crc32 {zlib.crc32(predictor.get_image_embedding().tobytes()):08x}" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--device", "board:/dev/none,/dev/none"), "DeviceError: the register file /dev/none cannot be opened"),
        (("--device", "rpc:127.0.0.1:1/fsim"), "DeviceError: 127.0.0.1:1: no server answers there"),
        (("--device", "fsim:ecp5_16x16"), "the program was made for 0x573a3b63 (sim_4x4)"),
        (("--image", "/nowhere"), "/nowhere cannot be read"),
        (("--speed", "3"), "'--speed' is not understood"),
    ],
)
def test_what_cannot_work_is_explained(program, unpacked, arguments, message):
    done = run(program, unpacked, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


def test_the_host_takes_over(accelerated, program, unpacked):
    failing = run(program, unpacked, "--device", "board:/dev/none,/dev/none", "--on-device-error", "host")
    assert failing.returncode == 0 and "going on with the functional simulator" in failing.stderr
    assert failing.stdout == run(program, unpacked).stdout


def test_unpacking_writes_the_library_and_the_tensors_of_every_function(accelerated, unpacked):
    bundle = read_bundle(accelerated.both)
    assert (unpacked / "library.so").read_bytes() == bundle.library
    params = {f"{name}.params" for name in bundle.manifest.functions}
    assert {path.name for path in unpacked.iterdir()} == {"library.so", "golden.params", *params}
