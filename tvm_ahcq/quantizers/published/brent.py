"""Bounded minimisation of a function of one variable.

Brent, "Algorithms for Minimization without Derivatives", 1973, chapter 5.
"""

from __future__ import annotations

from collections.abc import Callable
from math import copysign, sqrt

_GOLDEN = (3 - sqrt(5)) / 2
_ROOT_EPS = sqrt(2.2e-16)


def bounded_minimum(
    function: Callable[[float], float], low: float, high: float, tolerance: float = 1e-5, evaluations: int = 500
) -> tuple[float, float]:
    """Return a local minimum of `function` on [low, high] by golden sections and parabolic steps.

    Returns
    -------
    tuple of float
        The argument and its value.
    """
    best = second = third = low + _GOLDEN * (high - low)
    f_best = f_second = f_third = function(best)
    step = before = 0.0
    for _ in range(evaluations - 1):
        middle = (low + high) / 2
        nearest = _ROOT_EPS * abs(best) + tolerance / 3
        if abs(best - middle) <= 2 * nearest - (high - low) / 2:
            break
        parabola = None
        if abs(before) > nearest:
            parabola = _parabola((best, f_best), (second, f_second), (third, f_third))
        if parabola is not None and abs(parabola) < abs(before / 2) and low < best + parabola < high:
            before, step = step, parabola
            if min(best + step - low, high - best - step) < 2 * nearest:
                step = copysign(nearest, middle - best)
        else:
            before = (low if best >= middle else high) - best
            step = _GOLDEN * before
        trial = best + copysign(max(abs(step), nearest), step)
        value = function(trial)
        if value <= f_best:
            low, high = (best, high) if trial >= best else (low, best)
            third, f_third, second, f_second, best, f_best = second, f_second, best, f_best, trial, value
            continue
        low, high = (trial, high) if trial < best else (low, trial)
        if value <= f_second or second == best:
            third, f_third, second, f_second = second, f_second, trial, value
        elif value <= f_third or third in (best, second):
            third, f_third = trial, value
    return best, f_best


def _parabola(best: tuple[float, float], second: tuple[float, float], third: tuple[float, float]) -> float | None:
    """Return the step from the best point to the vertex of the parabola through three points; None for a line."""
    (x, fx), (w, fw), (v, fv) = best, second, third
    r, q = (x - w) * (fx - fv), (x - v) * (fx - fw)
    numerator, denominator = (x - v) * q - (x - w) * r, 2 * (q - r)
    return None if denominator == 0 else -numerator / denominator
