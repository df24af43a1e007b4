"""The self-check of a bundle: golden inputs, and the outputs that the model must give on any machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.models.execution import Check, SessionLike, run_driver

OUTPUT_TOLERANCE = 0.02
"""Relative L2 error of an output. Integers agree exactly; float arithmetic may move a code by one here and there."""

_SIDE, _SEED = 64, 0
"""Side in pixels of the generated image of families without a check of their own, and its seed."""


def golden_arrays(family: ModelFamily, session: SessionLike) -> dict[str, np.ndarray]:
    """Return golden inputs and outputs, made by a reference of the same model.

    Parameters
    ----------
    family : ModelFamily
        Decides by its own :class:`.GoldenCheck`; without one, the outputs of all calls of one sample are kept.
    session : SessionLike
        Executes the reference.
    """
    if family.golden is not None:
        return family.golden.make(session)
    image = np.random.default_rng(_SEED).integers(0, 256, (_SIDE, _SIDE, 3), np.uint8)
    return {"image": image, **_outputs(family, session, image)}


def compare(family: ModelFamily, session: SessionLike, golden: Mapping[str, np.ndarray]) -> tuple[Check, ...]:
    """Run golden inputs on any executor and compare its outputs with the golden ones."""
    if family.golden is not None:
        return family.golden.compare(session, golden)
    checks = []
    for name, output in _outputs(family, session, golden["image"]).items():
        difference = float(np.linalg.norm(output - golden[name]))
        error = difference / max(float(np.linalg.norm(golden[name])), 1e-30)
        # NaN does not pass
        checks.append(Check(f"{name}, relative error", error, OUTPUT_TOLERANCE, error <= OUTPUT_TOLERANCE))
    return tuple(checks)


def _outputs(family: ModelFamily, session: SessionLike, image: np.ndarray) -> dict[str, np.ndarray]:
    """Outputs of all calls of one sample, by number of the call, function and output."""
    arrays: dict[str, np.ndarray] = {}
    calls = 0

    def execute(function: str, *inputs: np.ndarray) -> Any:
        nonlocal calls
        outputs = session.run(function, *inputs)
        arrays.update({f"{calls}.{function}.{place}": value for place, value in enumerate(outputs)})
        calls += 1
        return outputs[0] if len(outputs) == 1 else outputs

    run_driver(family.drive(session.model, family.prepare(session.model, image), _SEED), execute)
    return arrays
