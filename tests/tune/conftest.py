"""A runner without processes: candidates run here and now, timed by what the test says."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm.ir.utils import derived_object
from tvm.s_tir.meta_schedule.runner import PyRunner, PyRunnerFuture, RunnerResult

from tvm_ahcq.tune.host.measure import _arguments


@derived_object
class Done(PyRunnerFuture):
    """A result that is there at once."""

    def __init__(self, seconds: float | None) -> None:
        super().__init__()
        self.seconds = seconds

    def done(self) -> bool:
        return True

    def result(self) -> RunnerResult:
        if self.seconds is None:
            return RunnerResult(None, "the board caught fire")
        return RunnerResult([self.seconds], None)


@derived_object
class HereRunner(PyRunner):
    """Runs each candidate once in this process; `clock` says, call by call, how long that took."""

    def __init__(self, clock: Callable[[int], float | None]) -> None:
        super().__init__()
        self.clock, self.calls = clock, 0

    def run(self, runner_inputs):
        futures = []
        for item in runner_inputs:
            (arguments,) = _arguments(tvm.cpu(), [info.as_json() for info in item.args_info], 1)
            tvm.runtime.load_module(str(item.artifact_path))["main"](*arguments)
            assert arguments[-1].numpy().any()
            futures.append(Done(self.clock(self.calls)))
            self.calls += 1
        return futures


@pytest.fixture
def here() -> Callable[[Callable[[int], float | None]], HereRunner]:
    """Makes a runner from a clock."""
    return HereRunner
