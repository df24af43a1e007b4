"""Tuning measures the default first, keeps every record, goes on after a kill, and the compiler uses what won."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tvm_ahcq.errors import TuningError
from tvm_ahcq.kernels import grouped_linear
from tvm_ahcq.kernels.gemm.tiling import DEFAULT, LinearSchedule, linear_space
from tvm_ahcq.quantizers.core import reference
from tvm_ahcq.runtime.weights import pack
from tvm_ahcq.target import host_features, resolve_target
from tvm_ahcq.tune.host.measure import check_instruction
from tvm_ahcq.tune.host.search import next_candidates
from tvm_ahcq.tune.host.tuner import _features, tune
from tvm_ahcq.tune.records import FILE, LinearWorkload, Record, Tuning, append, read

WORK = LinearWorkload(40, 32, 2, 4)

HOST = resolve_target("native")

tunable = pytest.mark.skipif(len(linear_space(HOST)) == 1, reason=f"nothing can be chosen on {HOST.name}")


@tunable
def test_records_grow_until_the_trials_are_done_and_a_second_run_goes_on(here, tmp_path):
    seen = []
    times = [5.0, 3.0, None, 4.0, 4.5, 3.5]  # the last two are of the default and the winner, side by side
    (state,) = tune(HOST, {WORK: 9}, 4, tmp_path, here(lambda i: times[i]), progress=seen.append)
    assert (state.trials, state.failed, state.best, state.default) == (4, 1, 3.0, 4.5)
    assert [one.trials for one in seen] == [1, 4, 4] and seen[0].best == seen[0].default == 5.0
    records = read(tmp_path)
    assert records[0].schedule == DEFAULT and len({record.schedule for record in records}) == 4
    assert [record.error for record in records] == ["", "", "the board caught fire", "", "", ""]
    assert [record.schedule for record in records[4:]] == [DEFAULT, records[1].schedule]
    with pytest.raises(TuningError, match="has 6 records; go on with --resume"):
        tune(HOST, {WORK: 9}, 6, tmp_path, here(lambda i: 1.0))
    (state,) = tune(HOST, {WORK: 9}, 6, tmp_path, here(lambda i: (2.0, 6.0, 4.5, 2.5)[i]), resume=True)
    assert (state.trials, state.failed, state.best) == (6, 1, 2.0)
    assert len({record.schedule for record in read(tmp_path)}) == 6
    assert Tuning.read(tmp_path).linear(HOST, WORK) == read(tmp_path)[6].schedule
    assert Tuning.read(tmp_path).linear(HOST, LinearWorkload(41, 32, 2, 4)) == DEFAULT


@tunable
def test_a_default_that_fails_ends_the_search(here, tmp_path):
    with pytest.raises(TuningError, match=r"the default schedule fails on .*: the board caught fire"):
        tune(HOST, {WORK: 9}, 4, tmp_path, here(lambda _: None))


def test_a_target_without_choices_is_refused(here, tmp_path):
    with pytest.raises(TuningError, match="'generic' has one schedule only; tune for one of amx"):
        tune(resolve_target("generic"), {WORK: 9}, 4, tmp_path, here(lambda _: 1.0))


def test_a_line_cut_off_by_a_kill_is_left_out_and_later_ones_are_kept(tmp_path):
    one, two = (Record("avx2", WORK, 9, LinearSchedule(block_rows=rows), 1.0) for rows in (48, 192))
    append(tmp_path, [one, two])
    path = tmp_path / FILE
    path.write_bytes(path.read_bytes()[:-20])
    assert read(tmp_path) == [one]
    append(tmp_path, [two])
    assert read(tmp_path) == [one, two]


def test_the_model_leads_to_fast_schedules():
    """Time is made up as a function of the schedule; after some records, the best ones must come up soon."""
    space, rng = linear_space(resolve_target("avx512-vnni")), np.random.default_rng(0)

    def time(schedule: LinearSchedule) -> float:
        return 1 + abs(schedule.vectors - 4) + abs(schedule.tile_rows - 6) + schedule.block_rows / 96

    features, times = np.stack([_features(schedule) for schedule in space]), {}
    while len(times) < 40:
        chosen = next_candidates(space, features, times, 4, rng)
        assert not times.keys() & set(chosen)
        times |= {schedule: time(schedule) for schedule in chosen}
    assert next(iter(times)) == DEFAULT
    best = sorted(map(time, space))[: len(space) // 50 + 1]
    assert min(times.values()) <= best[-1]


def test_code_without_the_instruction_is_refused():
    with pytest.raises(TuningError, match="has no vpmaddubsw"):
        check_instruction(resolve_target("avx2"), "vpmulld ymm0, ymm1, ymm2")


@pytest.mark.parametrize("name", ["avx512-vnni", "avx2"])
def test_schedules_do_not_change_the_result(name: str):
    target = resolve_target(name)
    if not host_features().issuperset(target.cpu_features):
        pytest.skip(f"this machine cannot run code for {name}")
    rng, (m, n, sizes) = np.random.default_rng(0), (101, 83, (12, 20))
    operands, weight = rng.integers(0, 256, (m, 32), dtype=np.uint8), rng.integers(-15, 16, (n, 32)).astype(np.int8)
    multiplier, bias = rng.normal(size=(2, n)).astype(np.float32), rng.normal(size=n).astype(np.float32)
    correction, bounds = rng.integers(-99, 99, (2, n)).astype(np.int32), np.array([0, 12, 32], np.int32)
    arguments = [
        tvm.runtime.tensor(a) for a in (operands, pack(weight, "vnni16"), bounds, multiplier, correction, bias)
    ]
    expected = reference.grouped_linear(operands, weight, sizes, multiplier, correction, bias)
    space = linear_space(target)
    for schedule in (space[1], space[len(space) // 3], space[2 * len(space) // 3], space[-1]):
        func = grouped_linear(m, LinearWorkload(n, 32, 2, 4), "vnni16", target, schedule)
        out = tvm.runtime.tensor(np.zeros((m, n), np.float32))
        tvm.compile(func, target=target.tvm_target())(*arguments, out)
        assert np.array_equal(out.numpy(), expected), schedule
