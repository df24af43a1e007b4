"""A second model family, described in this file alone, from quantization to a loaded bundle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

import tvm_ahcq as ahcq
from tvm_ahcq.errors import BundleError, UnsupportedModelError
from tvm_ahcq.models.description import (
    FLOAT,
    FunctionDescription,
    LayerRole,
    ModelFamily,
    ModelSpec,
    SymbolicDim,
    TensorDescription,
    Variant,
)
from tvm_ahcq.models.execution import Call, Driver, SessionLike
from tvm_ahcq.models.export import export_module
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.registry import _FAMILIES, find_family, find_model, register_family
from tvm_ahcq.quantizers.core.table import QuantTable

SIDE, WIDTH = 32, 32


@dataclass(frozen=True)
class ToySpec(ModelSpec):
    """Figures of the toy model."""

    family: ClassVar[str] = "toy"

    classes: int


class Describe(nn.Module):
    """A picture to two results: features of its tiles, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.inner, self.outer = nn.LayerNorm(192), nn.Linear(192, 64), nn.Linear(64, WIDTH)

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1, 3, 32, 32) -> (1, 16, 32) and (1, 32)."""
        tiles = picture.reshape(1, 3, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).reshape(1, 16, 192)
        features = self.outer(torch.nn.functional.gelu(self.inner(self.norm(tiles))))
        return features, features.mean(1)


class Score(nn.Module):
    """Features, their mean, and any number of queries to scores of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, mean: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """(1, 32) and (Q, 32) -> (Q, 3)."""
        return self.head(self.mix(queries + mean))


class Toy(nn.Module):
    """Both parts."""

    def __init__(self) -> None:
        super().__init__()
        self.describe, self.score = Describe(), Score()


class Part(nn.Module):
    """A part under its name in the model."""

    def __init__(self, name: str, part: nn.Module) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, part)

    def forward(self, *inputs: torch.Tensor, **named: torch.Tensor) -> Any:
        return self.get_submodule(self.name)(*inputs, **named)


class DescribePart(Part):
    def forward(self, picture: torch.Tensor) -> Any:  # the exporter reads the names of inputs here
        return super().forward(picture)


class ScorePart(Part):
    def forward(self, mean: torch.Tensor, queries: torch.Tensor) -> Any:
        return super().forward(mean, queries)


def load(name: str, checkpoint: Any = None) -> FloatModel:
    """Random weights."""
    torch.manual_seed(0)
    toy = Toy().eval().requires_grad_(False)
    module, params = {}, {}
    inputs = {"picture": torch.zeros(1, 3, SIDE, SIDE)}
    module["describe"], params["describe"] = export_module(
        DescribePart("describe", toy.describe), "describe", inputs, {}
    )
    inputs = {"mean": torch.zeros(1, WIDTH), "queries": torch.zeros(2, WIDTH)}
    symbolic = {"queries": {0: "Q"}}
    module["score"], params["score"] = export_module(ScorePart("score", toy.score), "score", inputs, symbolic)
    import tvm

    weights = {key: value.numpy() for key, value in toy.state_dict().items()}
    return FloatModel(ToySpec(name, classes=3), tvm.IRModule(module), weights, params)


def prepare(spec: ToySpec, image: np.ndarray) -> np.ndarray:
    """The upper left corner, as float."""
    return image[:SIDE, :SIDE].transpose(2, 0, 1)[None].astype(np.float32) / 255


def drive(spec: ToySpec, sample: Any, seed: int) -> Driver:
    """One picture, three queries."""
    _features, mean = yield Call("describe", (sample,))
    queries = np.random.default_rng(seed).normal(size=(3, WIDTH)).astype(np.float32)
    yield Call("score", (mean, queries))


@dataclass
class ToyPredictor:
    """Scores queries on a picture."""

    session: SessionLike

    def predict(self, image: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """``(Q, 3)`` scores."""
        _features, mean = self.session.run("describe", prepare(self.session.model, image))
        return self.session.run("score", mean, queries)[0]


ROLES = (
    LayerRole(r"describe\.inner", "norm"),
    LayerRole(r"describe\.outer", "activation"),
    LayerRole(r"score\.mix", "linear"),
    LayerRole(r"score\.head", FLOAT, "three outputs"),
)


def describe(roles: tuple[LayerRole, ...] = ROLES, dims: tuple[SymbolicDim, ...] | None = None) -> ModelFamily:
    """The family, with these roles and dimensions."""
    mean = TensorDescription("mean", (1, WIDTH))
    return ModelFamily(
        name="toy",
        title="the toy",
        variants=(Variant("toy_a"),),
        spec=ToySpec,
        functions=(
            FunctionDescription(
                "describe",
                "describe",
                (TensorDescription("picture", (1, 3, SIDE, SIDE)),),
                (TensorDescription("features", (1, 16, WIDTH)), mean),
            ),
            FunctionDescription(
                "score",
                "score",
                (mean, TensorDescription("queries", ("Q", WIDTH))),
                (TensorDescription("scores", ("Q", 3)),),
            ),
        ),
        dims=(SymbolicDim("Q", "queries", typical=4, batch=True),) if dims is None else dims,
        roles=roles,
        units=r"describe|score",
        prepare=prepare,
        drive=drive,
        load=load,
        predictor=ToyPredictor,
    )


@pytest.fixture
def registered() -> Iterator[Callable[[ModelFamily], ModelFamily]]:
    """Registers families for one test."""
    yield register_family
    _FAMILIES.pop("toy", None)


@pytest.fixture
def pictures() -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (40, 48, 3), np.uint8) for _ in range(3)]


def test_it_goes_from_quantization_to_a_loaded_bundle(registered, pictures, tmp_path) -> None:
    registered(describe())
    family, variant = find_model("toy_a")
    model = family.load(variant.name, None)
    qmodel = ahcq.quantize(model, pictures, ahcq.recipe("ahcq", bits=8))
    assert qmodel.sites == (3, 3)
    qmodel.table.save(tmp_path / "toy.json")
    again = ahcq.quantize(model, QuantTable.load(tmp_path / "toy.json"))
    ahcq.compile(again, target="generic").save(tmp_path / "toy.ahcq")

    predictor = ahcq.load(tmp_path / "toy.ahcq")
    assert isinstance(predictor, ToyPredictor) and predictor.session.model == ToySpec("toy_a", 3)
    queries = np.random.default_rng(2).normal(size=(5, WIDTH)).astype(np.float32)
    found = predictor.predict(pictures[0], queries)
    exact = qmodel.float_predictor().predict(pictures[0], queries)
    np.testing.assert_allclose(found, qmodel.fake_quant_predictor().predict(pictures[0], queries), atol=1e-5)
    assert np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)
    assert all(check.passed for check in predictor.session.verify())


def test_block_reconstruction_learns_its_units(registered, pictures, tmp_path) -> None:
    registered(describe())
    model = find_family("toy").load("toy_a", None)
    qmodel = ahcq.quantize(model, pictures, "ahcq", effort="high", work_dir=tmp_path)
    assert {path.stem for path in tmp_path.glob("*.json")} >= {"describe", "score"}
    assert set(qmodel.table.weights) == {"describe.inner.weight", "describe.outer.weight", "score.mix.weight"}


def test_a_bundle_of_an_unknown_family_is_refused(registered, pictures, tmp_path) -> None:
    registered(describe())
    model = find_family("toy").load("toy_a", None)
    ahcq.compile(model, target="generic").save(tmp_path / "toy.ahcq")
    _FAMILIES.pop("toy")
    with pytest.raises(BundleError, match="unknown model family 'toy'"):
        ahcq.load(tmp_path / "toy.ahcq")


def test_an_unknown_model_type_lists_the_known_ones(registered) -> None:
    registered(describe())
    with pytest.raises(UnsupportedModelError, match=r"vit_b.*toy_a"):
        find_model("vit_x")
