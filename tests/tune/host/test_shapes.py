"""The shapes that are tuned without a bundle are those of the published encoders."""

from __future__ import annotations

import re

import pytest
from torch import nn

from tvm_ahcq.cli.main import build_parser
from tvm_ahcq.kernels.gemm.tiling import DEFAULT, LinearSchedule, linear_space
from tvm_ahcq.models.registry import encoders
from tvm_ahcq.models.sam.load import build_module
from tvm_ahcq.models.sam2.load import build_module as build_sam2
from tvm_ahcq.target import resolve_target
from tvm_ahcq.tune.host.shapes import encoder_workloads
from tvm_ahcq.tune.records import DEFAULTS_FILE, Record, Tuning, read_lines
from tvm_ahcq.tune.update_defaults import MAX_TIME_RATIO, clear_gains


def sizes(encoder: nn.Module) -> set[tuple[int, int]]:
    """(outputs, inputs) of every layer that is a matrix product on codes: not the patch embedding."""
    found = {(layer.out_features, layer.in_features) for layer in encoder.modules() if isinstance(layer, nn.Linear)}
    convolutions = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv2d) and layer.in_channels > 3]
    return found | {(c.out_channels, c.in_channels * c.kernel_size[0] * c.kernel_size[1]) for c in convolutions}


def tuned(name: str) -> set[tuple[int, int]]:
    """The same of what is tuned; four groups are filled up with three channels each."""
    return {(work.outputs, work.channels - 12 * (work.groups > 1)) for work in encoder_workloads(name)}


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_sam_encoders_have_these_layers(name: str):
    assert tuned(name) == sizes(build_module(name).image_encoder)


def test_the_help_of_tune_names_every_encoder(capsys):
    with pytest.raises(SystemExit):
        build_parser().parse_args(["tune", "--help"])
    words = re.findall(r"[\w+.]+", capsys.readouterr().out)
    assert set(encoders()) <= set(words)


@pytest.mark.parametrize("name", ["sam2.1_hiera_t", "sam2.1_hiera_b+", "sam2.1_hiera_l"])
def test_sam2_encoders_have_these_layers(name: str):
    assert tuned(name) == sizes(build_sam2(name).image_encoder)


def defaults() -> list[Record]:
    return read_lines(DEFAULTS_FILE.read_text(encoding="utf-8").splitlines())


def test_default_records_are_of_these_shapes_and_clearly_faster_than_the_default():
    known = {work: rows for name in encoders() for work, rows in encoder_workloads(name).items()}
    records = defaults()
    assert records
    default = {(r.target, r.workload, r.rows): r.seconds for r in records if r.schedule == DEFAULT}
    for record in records:
        assert record.workload in known
        assert record.schedule in linear_space(resolve_target(record.target))
        slowest = default[record.target, record.workload, record.rows]
        assert record.schedule == DEFAULT or record.seconds <= MAX_TIME_RATIO * slowest


def test_of_many_measurements_the_default_and_what_clearly_beats_it_are_defaults():
    work, other, fast = next(iter(encoder_workloads("vit_b"))), LinearSchedule(4, 6), LinearSchedule(3, 8)
    slow = [Record("avx512-vnni", work, 64, DEFAULT, 1.0), Record("avx512-vnni", work, 64, other, 0.99)]
    assert clear_gains(slow) == []
    better = Record("avx512-vnni", work, 64, fast, 0.9)
    assert clear_gains([*slow, better, Record("avx512-vnni", work, 64, other, None, "failed")]) == [slow[0], better]
    assert clear_gains([*slow, better, Record("avx512-vnni", work, 64, DEFAULT, 0.9)]) == []


def test_a_compiler_uses_them_unless_it_is_told_better():
    best = next(record for record in defaults() if record.schedule != DEFAULT)
    target, tuning = resolve_target(best.target), Tuning.of(defaults())
    assert tuning.linear(target, best.workload) == best.schedule
    told = tuning.updated(Tuning({(target.name, best.workload): DEFAULT}))
    assert told.linear(target, best.workload) == DEFAULT
