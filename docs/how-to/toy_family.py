"""A model family in one file: embeds the tiles of a picture, then scores each tile."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn
from tvm.ir import IRModule

from tvm_ahcq.models.description import (
    DECODE,
    ENCODE,
    FLOAT,
    FunctionDescription,
    LayerRole,
    ModelFamily,
    ModelSpec,
    SymbolicDim,
    TensorDescription,
    Variant,
)
from tvm_ahcq.models.execution import Call, Driver
from tvm_ahcq.models.export import export_module
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import register_family

TILES, TILE = 16, 4
"""Tiles of a picture; side of a tile in pixels."""


# [spec]
@dataclass(frozen=True)
class TileSpec(ModelSpec):
    """Figures that pre- and post-processing need."""

    family: ClassVar[str] = "tiles"

    channels: int


# [modules]
class Embed(nn.Module):
    """Tiles ``(1, 16, 48)`` to embeddings ``(1, 16, C)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3 * TILE * TILE)
        self.lin1, self.lin2 = nn.Linear(3 * TILE * TILE, 2 * channels), nn.Linear(2 * channels, channels)

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        """Return the embeddings."""
        return self.lin2(nn.functional.gelu(self.lin1(self.norm(tiles))))


class Score(nn.Module):
    """Embeddings ``(B, 16, C)`` and offsets ``(B, 16)`` to scores ``(B, 16)``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.head = nn.Linear(channels, 1)

    def forward(self, embedding: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.head(embedding)[:, :, 0] + offset


# [load]
def load(name: str, checkpoint: str | os.PathLike[str] | None = None) -> FloatModel:
    """Return the model with random weights, or those of a checkpoint."""
    torch.manual_seed(0)
    spec = TileSpec(name, channels=32)
    torch_modules = {"embed": Embed(spec.channels), "score": Score(spec.channels)}
    if checkpoint is not None:
        for function, state in torch.load(checkpoint, weights_only=True).items():
            torch_modules[function].load_state_dict(state)
    inputs = {
        "embed": {"tiles": torch.zeros(1, TILES, 3 * TILE * TILE)},
        "score": {"embedding": torch.zeros(2, TILES, spec.channels), "offset": torch.zeros(2, TILES)},
    }
    symbolic: dict[str, dict[str, dict[int, str]]] = {"embed": {}, "score": {"embedding": {0: "B"}, "offset": {0: "B"}}}
    module, params, function_params = IRModule(), {}, {}
    for function, torch_module in torch_modules.items():
        module[function], function_params[function] = export_module(
            torch_module, function, inputs[function], symbolic[function]
        )
        params |= {key: value.detach().numpy() for key, value in torch_module.state_dict().items()}
    return FloatModel(spec, module, params, function_params)


# [drive]
def prepare(spec: TileSpec, image: np.ndarray) -> np.ndarray:
    """Return the tiles of the picture's top left corner, ``(1, 16, 48)`` float32."""
    corner = image[: 4 * TILE, : 4 * TILE].reshape(4, TILE, 4, TILE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(corner.reshape(1, TILES, -1), np.float32) / 255


def drive(spec: TileSpec, sample: Any, seed: int) -> Driver:
    """Embed a sample, then score it with random offsets."""
    embedding = yield Call("embed", (sample,))
    yield Call("score", (embedding, np.random.default_rng(seed).normal(size=(1, TILES)).astype(np.float32)))


# [family]
EMBEDDING = TensorDescription("embedding", ("B", TILES, "C"), "embeddings of tiles")

TILES_FAMILY = register_family(
    ModelFamily(
        name="tiles",
        title="Tiles",
        variants=(Variant("tiles_s"),),
        spec=TileSpec,
        functions=(
            FunctionDescription(
                "embed",
                ENCODE,
                (TensorDescription("tiles", (1, TILES, 3 * TILE * TILE), "pixels in 0..1"),),
                (EMBEDDING,),
            ),
            FunctionDescription(
                "score",
                DECODE,
                (EMBEDDING, TensorDescription("offset", ("B", TILES))),
                (TensorDescription("scores", ("B", TILES)),),
            ),
        ),
        dims=(SymbolicDim("B", "pictures", typical=1, batch=True),),
        roles=(
            LayerRole("lin1", "norm"),
            LayerRole("lin2", "activation"),
            LayerRole("head", FLOAT, "one output: rounding it saves nothing"),
        ),
        units="lin1|lin2",
        prepare=prepare,
        drive=drive,
        load=load,
        predictor=lambda session: session,
    )
)
