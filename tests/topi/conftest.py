"""Runs kernels on numpy arrays."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import tvm

from tvm_ahcq.target import HostTarget, resolve_target


@pytest.fixture(scope="session", params=["native", "generic"])
def target(request: pytest.FixtureRequest) -> HostTarget:
    """What the machine can do best, and what every machine can do."""
    return resolve_target(request.param)


@pytest.fixture(scope="session")
def build(target: HostTarget) -> Callable[[tvm.tirx.PrimFunc], Callable[..., np.ndarray]]:
    """Compiles a PrimFunc to a function ``(*arrays, shape=..., dtype=...) -> array``; `shape` is the output's."""

    def compiled(func: tvm.tirx.PrimFunc) -> Callable[..., np.ndarray]:
        kernel = tvm.compile(func, target=target.tvm_target())

        def run(*arrays: np.ndarray, shape: tuple[int, ...], dtype: str) -> np.ndarray:
            # filled with a value that no kernel may leave behind
            out = tvm.runtime.tensor(np.full(shape, 113, dtype))
            kernel(*map(tvm.runtime.tensor, arrays), out)
            return out.numpy()

        return run

    return compiled
