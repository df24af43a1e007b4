"""Session that simulates the quantized model in torch (fake quantization)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm

from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight

from .simulate import SimulatedSites, exact_layer_norm, using_sites
from .torch_session import TorchSession


class SimulatedSession(TorchSession):
    """Session with quantized weights and sites, whose codes equal those of the integer graph.

    Parameters
    ----------
    model : ModelSpec
        Figures of the model.
    module : tvm.IRModule
        Annotated module.
    params : mapping of str to numpy.ndarray
        Parameters; those of layers that have codes are not read.
    table : QuantTable
        Quantizers of sites, and codes of all weights (:meth:`.QuantTable.with_codes`).
    """

    def __init__(self, model: ModelSpec, module: tvm.IRModule, params: Mapping[str, np.ndarray], table: QuantTable):
        super().__init__(model, module, params, hooks={"relax.nn.layer_norm": exact_layer_norm})
        self.sites = SimulatedSites(table.sites, quantized_layers(table))

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """Run a function as :meth:`TorchSession.run` does, quantized."""
        with using_sites(self.sites):
            return super().run(name, *inputs)


def quantized_layers(table: QuantTable) -> dict[str, QuantizedWeight]:
    """Return the weights of a table that has codes for all of them, by name of the layer."""
    return {name.removesuffix(".weight"): table.weight(name) for name in table.weights}
