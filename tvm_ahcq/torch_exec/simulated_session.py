"""A session that simulates the quantized model in torch (fake quantization)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm

from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight, encode_weight

from .simulate import SimulatedSites, exact_layer_norm, using_sites
from .torch_session import TorchSession


class SimulatedSession(TorchSession):
    """Weights rounded to their codes, every site quantized; codes equal those of the integer graph.

    Parameters
    ----------
    model : ModelSpec
        Figures of the model.
    module : tvm.IRModule
        Annotated module.
    params : mapping of str to numpy.ndarray
        Float parameters.
    table : QuantTable
        Quantizers of sites and weights.
    """

    def __init__(self, model: ModelSpec, module: tvm.IRModule, params: Mapping[str, np.ndarray], table: QuantTable):
        super().__init__(model, module, params, hooks={"relax.nn.layer_norm": exact_layer_norm})
        self.sites = SimulatedSites(table.sites, quantized_layers(params, table))

    def run(self, name: str, *inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        """As :meth:`TorchSession.run`, quantized."""
        with using_sites(self.sites):
            return super().run(name, *inputs)


def quantized_layers(params: Mapping[str, np.ndarray], table: QuantTable) -> dict[str, QuantizedWeight]:
    """Codes of every weight of `table`, by name of the layer."""
    return {
        name.removesuffix(".weight"): encode_weight(params[name], *ranges.arrays(), ranges.bits)
        for name, ranges in table.weights.items()
    }
