"""Tuning through an RPC tracker, with this machine as the board."""

from __future__ import annotations

import pytest
from tvm import rpc
from tvm.rpc.tracker import Tracker as TrackerProcess

from tvm_ahcq.kernels.gemm.tiling import linear_space
from tvm_ahcq.target import resolve_target
from tvm_ahcq.tune.host.measure import Tracker, make_runner
from tvm_ahcq.tune.host.tuner import tune
from tvm_ahcq.tune.records import LinearWorkload


@pytest.mark.slow
def test_a_board_that_a_tracker_knows_measures_candidates(tmp_path):
    host = resolve_target("native")
    if len(linear_space(host)) == 1:
        pytest.skip(f"nothing can be chosen on {host.name}")
    tracker = TrackerProcess(host="127.0.0.1", port=9190, port_end=9290, silent=True)
    address = ("127.0.0.1", tracker.port)
    server = rpc.Server(host="127.0.0.1", port=9290, port_end=9390, tracker_addr=address, key="board", silent=True)
    try:
        runner = make_runner(host, Tracker(*address, "board"))
        (state,) = tune(host, {LinearWorkload(40, 32, 2, 4): 9}, 2, tmp_path, runner)
    finally:
        server.terminate()
        tracker.terminate()
    assert (state.trials, state.failed) == (2, 0)
    assert 0 < state.best <= state.default < 60
