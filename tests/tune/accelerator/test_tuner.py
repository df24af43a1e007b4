"""Tuning of an accelerator: simulated cycles decide, every measurement is kept, a second run goes on."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from tvm_ahcq.codegen.isa.config import named
from tvm_ahcq.codegen.lower.linear.layer import LinearLayer
from tvm_ahcq.codegen.lower.linear.operator import lower_linear
from tvm_ahcq.codegen.lower.tiles import AttentionTile, LinearTile
from tvm_ahcq.errors import DeviceError, TuningError
from tvm_ahcq.kernels.gemm.tiling import DEFAULT
from tvm_ahcq.runtime.operator_shapes import AttentionShape, LinearShape
from tvm_ahcq.runtime.weights import QLinearWeight
from tvm_ahcq.tune.accelerator.programs import TileTask
from tvm_ahcq.tune.accelerator.records import TileRecord, best_tiles, read_tiles
from tvm_ahcq.tune.accelerator.runner import CycleRunner, load, measure_tiles, save, simulated_cycles
from tvm_ahcq.tune.accelerator.tuner import tune_tiles
from tvm_ahcq.tune.records import FILE, LinearWorkload, Record, append, read

CONFIG = named("sim_4x4")
LAYER = LinearShape(64, 48, 64, (2,), False, (40, 24))
HEADS = AttentionShape(2, 40, 40, 8, (5, 8))


def test_a_search_finds_tiles_at_least_as_good_as_the_default_and_a_second_run_goes_on(tmp_path):
    seen = []
    first = tune_tiles(CONFIG, [LAYER, HEADS], 5, tmp_path, CycleRunner(), progress=seen.append)
    assert [(state.workload, state.trials, state.total) for state in first] == [(LAYER, 5, 5), (HEADS, 5, 5)]
    assert [state.trials for state in seen] == [1, 5, 1, 5] and seen[0].best == seen[0].default > 0
    assert all(state.too_large > 0 and state.best <= state.default for state in first)
    records = read_tiles(tmp_path)
    assert len(records) == 10 and records[0].tile == TileTask(CONFIG, LAYER).space.tiles[0]
    with pytest.raises(TuningError, match="has 10 records; go on with --resume"):
        tune_tiles(CONFIG, [LAYER], 8, tmp_path, CycleRunner())
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])  # a kill while the last record was written
    second = tune_tiles(CONFIG, [LAYER, HEADS], 24, tmp_path, CycleRunner(), resume=True)
    assert [state.trials for state in second] == [24, 24]
    assert read_tiles(tmp_path)[:9] == records[:9] and len(read_tiles(tmp_path)) == 48
    assert second[0].best < second[0].default  # of so small a layer, the default is not the best
    best = best_tiles(tmp_path, CONFIG)
    assert best == {state.workload: state.tile for state in second}
    for state in second:
        program = TileTask(CONFIG, state.workload).program(best[state.workload])
        assert program.runs * simulated_cycles(program) == state.best


def test_a_program_for_tuning_takes_the_cycles_of_the_one_that_is_compiled():
    weight = QLinearWeight(
        np.random.default_rng(0).integers(0, 16, (48, 64)).astype(np.uint8),
        4,
        np.full(48, 1e-3, np.float32),
        np.full(48, 8, np.uint8),
        np.arange(64, dtype=np.int32),
        (40, 24),
        np.ones(2, np.float32),
        np.full(2, 7, np.int32),
    )
    layer = LinearLayer(weight, np.zeros(48, np.float32))
    task = TileTask(CONFIG, LAYER)
    for tile in (task.space.tiles[0], LinearTile(16, 4, 3, 2, columns_first=True)):
        lowered = lower_linear(CONFIG, 64, layer, tiles={LAYER: tile})
        assert lowered.shapes == (LAYER,) and lowered.shapes[0].group_sizes == LAYER.group_sizes
        program = task.program(tile)
        assert (program.length, program.runs) == (len(lowered.program) // 32, lowered.runs)
        names = [each.name for each in lowered.instructions]
        again = lower_linear(CONFIG, 64, replace(layer, bias=layer.bias + 1), tiles={LAYER: tile})
        assert names == [each.name for each in again.instructions]


def test_what_gives_no_program_or_fails_becomes_a_record_with_the_reason(tmp_path):
    task = TileTask(CONFIG, LAYER)
    good = task.space.tiles[0]
    records = measure_tiles(task, [LinearTile(64, 16, 1000, 2), good, AttentionTile(8, 1, 0)], CycleRunner())
    assert [record.tile for record in records][1] == good and records[1].cycles > 0 and not records[1].error
    assert records[0].cycles is records[2].cycles is None
    assert "does not fit the scratchpads of sim_4x4" in records[0].error and "is no tile of" in records[2].error
    program = task.program(good)
    save(replace(program, start=program.start + 1, length=1 << 20), tmp_path / "broken")
    with pytest.raises(DeviceError, match="ends with"):
        simulated_cycles(load(tmp_path / "broken"))


def test_an_operator_that_does_not_fit_is_named_and_the_others_are_tuned(tmp_path):
    far = AttentionShape(1, 8, 8191, 8, ())
    found = tune_tiles(CONFIG, [far, HEADS], 1, tmp_path, CycleRunner())
    assert "do not fit the scratchpads" in found[0].reason and found[0].best is None
    assert found[1].trials == 1 and found[1].best == found[1].default


def test_records_of_processors_and_accelerators_share_a_folder(tmp_path):
    schedule = Record("avx2", LinearWorkload(40, 32, 2, 4), 9, DEFAULT, 1.0)
    tiles = [
        TileRecord("sim_4x4", CONFIG.hash, LAYER, LinearTile(8, rows, 1, 2), cycles)
        for rows, cycles in ((1, 90), (2, 80), (3, 80), (4, None))
    ]
    other = replace(tiles[0], config_hash=CONFIG.hash ^ 1, cycles=7)
    append(tmp_path, [schedule, *tiles, other])
    assert read(tmp_path) == [schedule] and read_tiles(tmp_path) == [*tiles, other]
    assert best_tiles(tmp_path, CONFIG) == {LAYER: tiles[1].tile}


@pytest.mark.parametrize(
    "change",
    [
        {"tile": {"rows": 8}},
        {"tile": {"rows": "8", "blocks": 1, "chunk": 1, "ahead": 1}},
        {"cycles": "many"},
        {"shape": {"rows": 8}},
        {"shape": None},
    ],
)
def test_a_damaged_record_is_an_error_that_names_its_line(tmp_path, change):
    good = TileRecord("sim_4x4", CONFIG.hash, LAYER, LinearTile(8, 2, 1, 2), 90)
    append(tmp_path, [good])
    with open(tmp_path / FILE, "a") as file:
        file.write(json.dumps({**asdict(good), **change}) + "\n")
    with pytest.raises(TuningError, match=r"records.jsonl, line 2, is no record of a tile"):
        read_tiles(tmp_path)
