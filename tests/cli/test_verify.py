"""``tvm-ahcq verify --kernels`` prints what was compared, and fails where a kernel differs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tvm_ahcq.cli.main import main
from tvm_ahcq.runtime.bundle import read_bundle, write_bundle


def test_every_kind_has_a_line(described: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = described / "quantized.ahcq"
    manifest = read_bundle(path).manifest
    for target in manifest.targets:
        assert main(["verify", "--kernels", "--target", target.name, str(path)]) == 0
        captured = capsys.readouterr()
        kinds = {each["kind"] for each in manifest.kernels[target.name].values()}
        lines = {line.split()[0]: line for line in captured.out.splitlines() if line.split()}
        assert all("as asked" in lines[kind] for kind in kinds)
        assert f"{len(manifest.kernels[target.name])} for target {target.name}" in lines["kernels"]
        assert "not compared" in lines["others"] and "golden" in lines and captured.err == ""


def test_differences_are_printed_and_the_status_is_2(
    described: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = read_bundle(described / "quantized.ahcq")
    name = bundle.target.name
    symbol = next(key for key, each in bundle.manifest.kernels[name].items() if each["kind"] == "norm_encode")
    wrong = {key: each | {"bits": 1} if key == symbol else each for key, each in bundle.manifest.kernels[name].items()}
    manifest = replace(bundle.manifest, kernels={name: wrong})
    write_bundle(tmp_path / "wrong.ahcq", manifest, bundle.libraries, bundle.tensors, bundle.golden)
    assert main(["verify", "--kernels", str(tmp_path / "wrong.ahcq")]) == 2
    captured = capsys.readouterr()
    assert f"differs    {symbol} (" in captured.out and "calls DIFFER" in captured.out
    assert captured.err.count("\n") == 1 and symbol in captured.err and "golden" not in captured.out
