"""A predictor's session that runs a Relax module in torch: float and fake-quantized modules alike."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import tvm

from tvm_ahcq.runtime.manifest import ModelSpec

from .executor import TorchExecutor
from .registry import Handler


class TorchSession:
    """Has the interface of :class:`tvm_ahcq.runtime.session.Session`, so a ``SamPredictor`` runs on it.

    Parameters
    ----------
    model : ModelSpec
        Figures of the model.
    module : tvm.IRModule
        With ``encode_image``, ``decode`` and ``decode_mask``.
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

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Image ``(1, 3, S, S)`` float32 -> embedding ``(1, C, h, w)`` float32."""
        with torch.inference_mode():
            return self.executor.run("encode_image", np.asarray(image, np.float32)).numpy()

    def decode(
        self,
        embedding: np.ndarray,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Prompts -> ``(B, 4, 4h, 4w)`` mask logits and ``(B, 4)`` predicted IoU; see :class:`SamModel`."""
        inputs: tuple[np.ndarray, ...] = (embedding, point_coords, point_labels)
        function = "decode"
        if mask_input is not None:
            function, inputs = "decode_mask", (*inputs, mask_input)
        with torch.inference_mode():
            masks, iou = self.executor.run(function, *(np.asarray(value, np.float32) for value in inputs))
        return masks.numpy(), iou.numpy()
