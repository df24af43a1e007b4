"""A predictor's session that simulates the quantized model in torch (fake quantization)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import tvm

from ..op.simulate import SimulatedSites, using_sites
from ..quantizers.table import QuantTable
from ..quantizers.weights import encode_weight
from ..runtime.manifest import ModelSpec
from .session import TorchSession


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
        super().__init__(model, module, rounded_weights(params, table))
        self.sites = SimulatedSites(table.sites)

    def encode(self, image: np.ndarray) -> np.ndarray:
        """As :meth:`TorchSession.encode`, quantized."""
        with using_sites(self.sites):
            return super().encode(image)

    def decode(self, embedding, point_coords, point_labels, mask_input=None) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`TorchSession.decode`, quantized."""
        with using_sites(self.sites):
            return super().decode(embedding, point_coords, point_labels, mask_input)


def rounded_weights(params: Mapping[str, np.ndarray], table: QuantTable) -> dict[str, np.ndarray]:
    """Float parameters with every weight of `table` rounded to the values of its codes."""
    rounded = dict(params)
    for name, ranges in table.weights.items():
        rounded[name] = encode_weight(params[name], *ranges.arrays(), ranges.bits).dequantize()
    return rounded
