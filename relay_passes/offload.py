"""Offload of a realised module: what runs faster on the accelerator becomes calls to it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tvm.ir import IRModule

from tvm_ahcq.models.description import ModelFamily
from tvm_ahcq.runtime.offload import OffloadReport
from tvm_ahcq.runtime.weights import QLinearWeight

from .realise import Realised
from .rewrite import PARAM_NAMES


@dataclass(frozen=True)
class Offloaded:
    """A realised module whose operators are partly on the accelerator.

    Attributes
    ----------
    module : tvm.IRModule
        With calls to the accelerator.
    function_params : dict
        Names of the records that each function still takes, in order.
    report : OffloadReport
        Where every operator went.
    """

    module: IRModule
    function_params: dict[str, list[str]]
    report: OffloadReport


def partition(
    realised: Realised,
    config: str,
    family: ModelFamily,
    offload: str = "auto",
    chain: bool = False,
    tuning: Path | None = None,
) -> Offloaded:
    """Move operators that run faster there to the accelerator `config`, with the tiles recorded in `tuning`.

    Raises
    ------
    DeviceError
        If there is no such configuration, or `offload` is not "auto" or "all".
    TuningError
        If a recorded tile cannot be used.
    UnsupportedModelError
        If `family` does not describe a symbolic dimension.
    """
    # imported here: what compiles for the host alone needs neither the code generator nor the runtime library
    from tvm_ahcq.codegen.cost import CostModel
    from tvm_ahcq.codegen.isa.config import named
    from tvm_ahcq.tune.accelerator.records import best_tiles

    from .partition import partition_for_ahcq

    params: dict[str, np.ndarray | QLinearWeight] = {}
    records: dict[str, list[tuple[str, list[str]]]] = {}
    for function, names in realised.function_params.items():
        flat = iter(map(str, realised.module[function].attrs[PARAM_NAMES]))
        records[function] = []
        for name in names:
            tensor = realised.tensors[name]
            parts = [next(flat) for _ in range(3 if isinstance(tensor, QLinearWeight) else 1)]  # packed, scales
            params[parts[0]] = tensor
            records[function].append((name, parts))
    tiles = {} if tuning is None else best_tiles(tuning, named(config))
    found = partition_for_ahcq(realised.module, config, family, params, CostModel.named(offload), chain, tiles)
    left = {function: set(map(str, found.module[function].attrs[PARAM_NAMES])) for function in records}
    kept = {
        function: [name for name, parts in named if left[function].issuperset(parts)]
        for function, named in records.items()
    }
    return Offloaded(found.module, kept, found.report)
