"""Selection of the next candidates to measure: at random first, then by a cost model of those measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from tvm_ahcq.errors import TuningError

_FIRST = 12
"""Candidates that are measured before the model is used."""

_EXPLORE = 0.25
"""Part of later candidates that is drawn at random."""

Candidate = TypeVar("Candidate")


def next_candidates(
    space: Sequence[Candidate],
    features: np.ndarray,
    costs: Mapping[Candidate, float | None],
    count: int,
    rng: np.random.Generator,
) -> list[Candidate]:
    """Return up to `count` candidates that were not measured yet; the default, the first of the space, before all.

    Parameters
    ----------
    space : sequence
        All candidates.
    features : numpy.ndarray
        ``(len(space), n)``: each as numbers.
    costs : mapping
        Measured cost of candidates, such as seconds or cycles; None where the measurement failed.
    count : int
        Largest number of candidates to return.
    rng : numpy.random.Generator
        Of the random ones.

    Raises
    ------
    TuningError
        xgboost is not installed.
    """
    left = [i for i, candidate in enumerate(space) if candidate not in costs]
    if left and left[0] == 0:
        return [space[0]]
    measured = {i: cost for i, candidate in enumerate(space) if (cost := costs.get(candidate)) is not None}
    order = [left[i] for i in rng.permutation(len(left))]
    if len(costs) < _FIRST or len(measured) < 4:
        return [space[i] for i in order[:count]]
    expected = _expected(features[list(measured)], np.array(list(measured.values()), np.float64), features[left])
    ranked = [left[i] for i in np.argsort(expected, kind="stable")]
    explored = order[: int(rng.binomial(count, _EXPLORE))]
    chosen = [*explored, *(i for i in ranked if i not in explored)]
    return [space[i] for i in chosen[:count]]


def _expected(known: np.ndarray, costs: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the logarithm of the cost that boosted trees predict for each row of `asked`."""
    xgboost = load_xgboost()
    options = {"max_depth": 4, "eta": 0.2, "nthread": 1, "seed": 0, "verbosity": 0}
    model = xgboost.train(options, xgboost.DMatrix(known, label=np.log(costs)), num_boost_round=60)
    return model.predict(xgboost.DMatrix(asked))


def load_xgboost() -> Any:
    """Return the package xgboost.

    Raises
    ------
    TuningError
        It is not installed.
    """
    try:
        import xgboost
    except ImportError as error:
        raise TuningError("tuning needs xgboost: pip install 'tvm-ahcq[tune]'") from error
    return xgboost
