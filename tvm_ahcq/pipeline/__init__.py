"""The compiler pipeline as data: every phase from a float model to libraries, run, timed and dumped by one driver.

:data:`.phases.PHASES` is the table of contents.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .phases import COMPILE, PHASES, QUANTIZE, Phase, realise_all
from .state import Offload, PhaseTime, State

__all__ = ["COMPILE", "PHASES", "QUANTIZE", "Offload", "Phase", "PhaseTime", "State", "realise_all", "run"]


def run(phases: Sequence[Phase], state: State, dump_dir: Path | None = None) -> State:
    """Run those phases that apply to a state; return the state.

    Parameters
    ----------
    phases : sequence of Phase
        In order.
    state : State
        Changed in place; the time of each phase is appended to ``times``.
    dump_dir : Path, optional
        Folder for the results of each phase: modules as TVMScript without constants (``<phase>.py``, for several
        targets ``<phase>.<layout or host>.py``), quantization tables as JSON (``<phase>.json``).
    """
    for phase in phases:
        if not phase.applies(state):
            continue
        before = _results(state)
        start = time.perf_counter()
        phase.run(state)
        state.times.append(PhaseTime(phase.name, phase.action, time.perf_counter() - start))
        if dump_dir is not None:
            _dump(phase.name, before, _results(state), dump_dir)
    return state


def _results(state: State) -> dict[str, Any]:
    """Return modules and table of a state by what their dumps are called."""
    results: dict[str, Any] = {"": state.module, "table": state.table}
    for group in (state.modules, state.lowered):
        for name, module in group.items():
            results["" if len(group) == 1 else f".{name}"] = module
    return results


def _dump(phase: str, before: Mapping[str, Any], after: Mapping[str, Any], folder: Path) -> None:
    """Write what a phase changed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, result in after.items():
        if result is None or result is before.get(name):
            continue
        if name == "table":
            result.save(folder / f"{phase}.json")
        else:
            (folder / f"{phase}{name}.py").write_text(result.script(show_meta=False), encoding="utf-8")
