"""The driver of the pipeline: which phases it runs, times and dumps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

import tvm_ahcq as ahcq
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.pipeline import COMPILE, PHASES, QUANTIZE, Phase, State, run
from tvm_ahcq.quantizers.core.table import QuantTable


@pytest.fixture
def state(tiny_model: FloatModel) -> State:
    return State(tiny_model)


def phase(name: str, log: list[str], applies: Callable[[State], bool] = lambda state: True) -> Phase:
    return Phase(name, "append to a log", lambda state: log.append(name), applies)


def test_phases_run_in_order_and_only_where_they_apply(state: State) -> None:
    log: list[str] = []
    phases = [phase("1-first", log), phase("2-never", log, lambda state: False), phase("3-last", log)]
    run(phases, state)
    assert log == ["1-first", "3-last"]
    assert [each.name for each in state.times] == log
    assert all(each.seconds >= 0 for each in state.times)


def test_a_failing_phase_ends_the_run(state: State) -> None:
    log: list[str] = []

    def fail(_state: State) -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        run([replace(phase("1-fails", log), run=fail), phase("2-after", log)], state)
    assert log == [] and state.times == []


def test_names_of_phases_are_unique_and_in_order() -> None:
    names = [each.name for each in PHASES]
    assert names == sorted(set(names))
    assert PHASES == (*QUANTIZE, *COMPILE)


def test_every_phase_leaves_a_dump_and_a_time(tiny_model: FloatModel, pictures: list, tmp_path) -> None:
    qmodel = ahcq.quantize(tiny_model, pictures[:1], "minmax", dump_dir=tmp_path)
    compiled = ahcq.compile(qmodel, target="generic", dump_dir=tmp_path)
    names = [each.name for each in (*qmodel.times, *compiled.times)]
    assert names == ["1-canonicalise", "2-annotate", "3b-calibrate", "6-realise", "8-lower", "9-build"]
    written = {path.name for path in tmp_path.iterdir()}
    assert {"1-canonicalise.py", "2-annotate.py", "3b-calibrate.json", "6-realise.py", "8-lower.py"} <= written
    assert "ahcq.quantize" in (tmp_path / "2-annotate.py").read_text()
    assert "ahcq.quantize" not in (tmp_path / "6-realise.py").read_text()
    assert QuantTable.load(tmp_path / "3b-calibrate.json").sites == qmodel.table.sites
