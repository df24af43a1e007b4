"""Which candidates to measure next: some at random, then those that a model of the measured ones expects to be fast."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import TuningError
from ..topi.linear_schedule import LinearSchedule
from .records import Record

_FIRST = 12
"""Candidates to measure before the model is trusted."""

_EXPLORE = 0.25
"""Part of later candidates that is drawn at random."""


def next_schedules(
    space: Sequence[LinearSchedule], records: Sequence[Record], count: int, rng: np.random.Generator
) -> list[LinearSchedule]:
    """Up to `count` schedules of a space that have no record yet; the default, which is its first one, before all.

    Raises
    ------
    TuningError
        xgboost is not installed.
    """
    known = {record.schedule for record in records}
    left = [schedule for schedule in space if schedule not in known]
    if left and left[0] == space[0]:
        return left[:1]
    measured = [record for record in records if record.seconds is not None]
    order = [left[i] for i in rng.permutation(len(left))]
    if len(records) < _FIRST or len(measured) < 4:
        return order[:count]
    expected = _expected(measured, left)
    ranked = [left[i] for i in np.argsort(expected, kind="stable")]
    explored = order[: int(rng.binomial(count, _EXPLORE))]
    return [*explored, *(schedule for schedule in ranked if schedule not in explored)][:count]


def _expected(measured: Sequence[Record], left: Sequence[LinearSchedule]) -> np.ndarray:
    """Logarithm of the time that boosted trees expect of each schedule."""
    xgboost = load_xgboost()
    features = np.stack([_features(record.schedule) for record in measured])
    seconds = np.array([record.seconds for record in measured], np.float64)
    options = {"max_depth": 4, "eta": 0.2, "nthread": 1, "seed": 0, "verbosity": 0}
    model = xgboost.train(options, xgboost.DMatrix(features, label=np.log(seconds)), num_boost_round=60)
    return model.predict(xgboost.DMatrix(np.stack([_features(schedule) for schedule in left])))


def load_xgboost() -> Any:
    """The package xgboost.

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


def _features(schedule: LinearSchedule) -> np.ndarray:
    area = max(schedule.vectors, 1) * max(schedule.tile_rows, 1)
    whole = schedule.block_rows % max(schedule.tile_rows, 1) == 0
    return np.array(
        [schedule.vectors, schedule.tile_rows, np.log2(schedule.block_rows), schedule.rows_first, area, whole],
        np.float64,
    )
