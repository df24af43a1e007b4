"""``tvm-ahcq info`` prints what was written into the bundle, whatever machine it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.cli.main import main
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.runtime.bundle import write_bundle
from tvm_ahcq.runtime.manifest import FunctionSpec, Manifest, TargetSpec, TensorSpec


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle for a processor that does not exist, with a library that nobody loads."""
    manifest = Manifest(
        model=SamSpec("vit_x", 320, 20, 96, 0.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
        target=TargetSpec("elsewhere", "mips-unknown-none", ("msa",)),
        functions={"encode_image": FunctionSpec((TensorSpec("image", (1, 3, 320, 320), "float32"),), ("weight",))},
        recipe={"name": "ahcq"},
        bits=4,
        sites=(7, 9),
    )
    path = tmp_path / "x.ahcq"
    write_bundle(path, manifest, b"machine code", {"weight": np.zeros(3, np.float32)})
    return path


def test_info_shows_model_sites_target_and_functions(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(bundle)]) == 0
    printed = capsys.readouterr().out
    for expected in (
        "vit_x",
        "320x320",
        "96x20x20",
        "7/9",
        "mips-unknown-none",
        "msa",
        "encode_image(image float32[1, 3, 320, 320]), 1 parameters",
    ):
        assert expected in printed


def test_info_of_a_damaged_bundle_names_the_damage(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(bundle.read_bytes())
    data[data.index(b"machine code")] ^= 1
    bundle.write_bytes(data)
    assert main(["info", str(bundle)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "damaged: library.so" in captured.err


def test_verify_refuses_a_bundle_for_another_machine(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(bundle)]) == 2
    assert "made for mips" in capsys.readouterr().err


def test_ctrl_c_ends_with_130_and_one_line(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tvm_ahcq.runtime.bundle.read_bundle", interrupted)
    assert main(["info", str(bundle)]) == 130
    assert capsys.readouterr().err == "tvm-ahcq: interrupted\n"
