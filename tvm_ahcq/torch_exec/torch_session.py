"""A session that runs a Relax module in torch: float and annotated modules alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import tvm

from tvm_ahcq.models.description import ModelSpec

from .executor import TorchExecutor
from .registry import Handler


class TorchSession:
    """Has the interface of :class:`tvm_ahcq.runtime.session.Session`, so predictors run on it.

    Parameters
    ----------
    model : ModelSpec
        Figures of the model.
    module : tvm.IRModule
        With the model's functions.
    params, hooks
        As in :class:`TorchExecutor`.
    """

    def __init__(
        self,
        model: ModelSpec,
        module: tvm.IRModule,
        params: Mapping[str, np.ndarray | torch.Tensor],
        hooks: Mapping[str, Handler] | None = None,
    ):
        self.model = model
        self.executor = TorchExecutor(module, params, hooks)

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Call a function by name; inputs become float32. Return its outputs."""
        with torch.inference_mode():
            outputs = self.executor.run(name, *(np.asarray(value, np.float32) for value in inputs))
        return tuple(value.numpy() for value in (outputs if isinstance(outputs, tuple) else (outputs,)))
