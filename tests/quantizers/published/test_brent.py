"""Bounded minimisation against known minima and scipy."""

from __future__ import annotations

import math

import pytest
from scipy import optimize

from tvm_ahcq.quantizers.published.brent import bounded_minimum

FUNCTIONS = [
    (lambda x: (x - 0.3) ** 2, 0.0, 1.0, 0.3),
    (lambda x: -math.exp(-((x - 2) ** 2)), 1.0, 5.0, 2.0),
    (lambda x: abs(x - 0.77), 0.0, 1.0, 0.77),
    (lambda x: x, 0.0, 1.0, 0.0),
]


@pytest.mark.parametrize(("function", "low", "high", "expected"), FUNCTIONS)
def test_known_minima(function, low, high, expected):
    x, value = bounded_minimum(function, low, high)
    assert abs(x - expected) < 2e-5 and value == function(x)


def test_same_path_as_scipy_on_a_step_function():
    def steps(x: float) -> float:
        return round(40 * (x - 0.4) ** 2) + 0.01 * math.sin(90 * x)

    reference = optimize.minimize_scalar(steps, bounds=(0.1, 1.3), method="bounded", options={"xatol": 1e-5})
    assert abs(bounded_minimum(steps, 0.1, 1.3)[0] - reference.x) < 1e-9


def test_evaluations_are_bounded():
    calls = []
    bounded_minimum(lambda x: calls.append(x) or math.cosh(x - 0.3), -1.0, 1.0, 1e-12, evaluations=7)
    assert len(calls) == 7
