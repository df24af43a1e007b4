"""The model description: everything that the compiler and the runtime know about one model family.

A family (SAM, SAM 2, ...) fills in a :class:`ModelFamily` in a folder of its own and registers it
(:mod:`tvm_ahcq.models.registry`). Passes, calibration, tuning, evaluation and runtime query the description; no layer
or function name of a model stands anywhere else. This module imports neither torch nor TVM.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tvm_ahcq.errors import UnsupportedModelError

if TYPE_CHECKING:
    import os
    from pathlib import Path

    import numpy as np

    from tvm_ahcq.quantizers.activation.pixels import PixelRange
    from tvm_ahcq.quantizers.weight.equalise import Exchange

    from .evaluation import Prompting, Timing
    from .execution import Driver, GoldenCheck, SessionLike
    from .links import Links
    from .shapes import EncoderSizes

FLOAT = "float"
"""Role of a layer that stays in floating point by choice."""

ATTENTION = "attention"
"""Role of an attention: its operands and its probabilities are quantization sites."""

PIXELS = "pixels"
"""Role of a layer that reads the pixels of a normalised image."""

SITE_ROLES = ("norm", "activation", "projection", "linear", PIXELS)
"""Roles of linear layers and convolutions whose input is a quantization site (kinds of site of a recipe)."""

ROLES = (*SITE_ROLES, ATTENTION, FLOAT)
"""Every role that a layer can have."""

ENCODE, DECODE, REFINE = "encode", "decode", "refine"
"""Purposes of functions: image to embedding; prompts to masks; prompts and an earlier mask to masks."""


@dataclass(frozen=True)
class ModelSpec:
    """Figures of a model that pre- and post-processing need; each family derives its own class.

    Attributes
    ----------
    name : str
        Model type, as a user types it.
    """

    family: ClassVar[str]
    """Name of the family that the class belongs to."""

    name: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values, the family's name among them."""
        return {"family": self.family, **asdict(self)}

    @property
    def input_text(self) -> str:
        """Size of the model's input, for people."""
        return ""

    @property
    def summary(self) -> str:
        """The figures in a line, for people."""
        return self.input_text

    @property
    def tracks(self) -> bool:
        """True if the model has the functions that track objects in videos."""
        return False

    @property
    def tokens(self) -> int:
        """Rows that matrix products are tuned for: usually the tokens of an image."""
        return 1024

    @classmethod
    def from_dict(cls: type[Spec], stored: Mapping[str, Any]) -> Spec:
        """Return the inverse of :meth:`to_dict`; lists become tuples, unknown fields are ignored.

        Raises
        ------
        KeyError
            If a field is missing.
        """
        stored_values = {each.name: stored[each.name] for each in fields(cls)}
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored_values.items()}
        return cls(**values)


Spec = TypeVar("Spec", bound=ModelSpec)


@dataclass(frozen=True)
class SymbolicDim:
    """A dimension of function inputs that is known only when a function is called.

    Attributes
    ----------
    name : str
        Its symbol in shapes, such as ``"B"``.
    meaning : str
        What it counts, such as ``"prompts"``.
    typical : int
        Size for which work, transfers and cycles are estimated.
    batch : bool
        True if it counts independent items: a program for one item is run once an item.
    """

    name: str
    meaning: str
    typical: int
    batch: bool = False


@dataclass(frozen=True)
class TensorDescription:
    """An input or output of a function.

    Attributes
    ----------
    name : str
        Parameter name in the Relax function.
    shape : tuple of int or str
        A number, the name of a symbolic dimension, or the name of a figure of the model, for people.
    meaning : str
        What it holds.
    """

    name: str
    shape: tuple[int | str, ...]
    meaning: str = ""


@dataclass(frozen=True)
class FunctionDescription:
    """A Relax function of the model.

    Attributes
    ----------
    name : str
        Of the function in the IRModule and in bundles.
    purpose : str
        What callers look it up by: ``ENCODE``, ``DECODE``, ``REFINE``, or one of the family's own.
    inputs, outputs : tuple of TensorDescription
        In order.
    """

    name: str
    purpose: str
    inputs: tuple[TensorDescription, ...]
    outputs: tuple[TensorDescription, ...]


@dataclass(frozen=True)
class LayerRole:
    """The role of all layers whose name matches a pattern.

    Attributes
    ----------
    pattern : str
        Regular expression for the full name of a layer: of its module for parametric products and attentions
        (``image_encoder.blocks.0.attn.qkv``), ``<function>.<operator>`` for products of two computed operands and for
        poolings.
    role : str
        One of ``ROLES``.
    reason : str
        Why it stays in floating point; for role ``FLOAT`` only.
    """

    pattern: str
    role: str
    reason: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role is {self.role!r}; expected one of {', '.join(ROLES)}.")
        if (self.role == FLOAT) != bool(self.reason):
            raise ValueError(f"{self.pattern}: a layer has a reason if, and only if, it stays in floating point.")


@dataclass(frozen=True)
class Variant:
    """A model type of a family.

    Attributes
    ----------
    name : str
        As a user types it.
    checkpoint : str
        Address of the published checkpoint; "" if none is published.
    weights : Path or None
        File of its weights where they are part of the package.
    encoder : EncoderSizes or None
        Layers of its image encoder, where tuning knows them without a bundle.
    """

    name: str
    checkpoint: str = ""
    weights: Path | None = None
    encoder: EncoderSizes | None = None

    @property
    def embedded(self) -> bool:
        """True if its weights are part of the package."""
        return self.weights is not None


@dataclass(frozen=True, eq=False)
class ModelFamily:
    """All models of one architecture.

    Attributes
    ----------
    name : str
        Of the family.
    title : str
        For people.
    variants : tuple of Variant
        Model types.
    spec : type
        Class of the figures of its models.
    functions : tuple of FunctionDescription
        In the order in which a sample passes them.
    dims : tuple of SymbolicDim
        Symbolic dimensions of the functions' inputs.
    roles : tuple of LayerRole
        The first pattern that matches a layer's name gives its role.
    units : str
        Regular expression whose match at the start of a layer's name is the name of the unit that block reconstruction
        learns as one.
    prepare : callable
        ``prepare(spec, image) -> sample``: an ``(H, W, 3)`` uint8 RGB image to the input of the first function.
    drive : callable
        ``drive(spec, sample, seed) -> Driver``: one calibration sample through every function.
    exchanges : callable
        ``exchanges(params) -> exchanges``: places where channels can be rescaled without changing the function.
    load : callable
        ``load(name, checkpoint)`` returns a :class:`.float_model.FloatModel`; may import torch and TVM.
    map_checkpoint : callable
        ``map_checkpoint(state) -> state``: tensors of a checkpoint file under the names of the model's state dict.
    marker : str
        Regular expression for the name of a tensor that tells this family's checkpoints from those of others.
    load_video : callable or None
        As `load`, with the functions that track objects in videos; None for a family that has none.
    predictor : callable
        ``predictor(session)``: what ``tvm_ahcq.load`` returns for a bundle of this family.
    video_predictor : callable or None
        ``video_predictor(session, **options)``: what ``tvm_ahcq.load_video`` returns; None if the family has no memory.
    golden : GoldenCheck or None
        How bundles check themselves; None: outputs of the calls of one sample are compared.
    input_range : callable
        ``input_range(spec) -> range``: least and greatest value of each channel that layers of role ``PIXELS`` read;
        None where it is not known.
    searched_keys : str
        Regular expression for the key sites whose ranges the published method searches.
    foldable_signs : str
        Regular expression for the attentions whose key signs BIG may fold into the projections.
    links : callable or None
        ``links(spec, params, head_dims) -> Links``: layers along which parameters can change without changing the
        function; `head_dims` are channels of a head by attention.
    prompting : Prompting or None
        Prompts and masks of promptable segmentation, for sensitivity analysis and mixed precision.
    timing : Timing or None
        Calls to time, for profiles and benchmarks.
    """

    name: str
    title: str
    variants: tuple[Variant, ...]
    spec: type[ModelSpec]
    functions: tuple[FunctionDescription, ...]
    dims: tuple[SymbolicDim, ...]
    roles: tuple[LayerRole, ...]
    units: str
    prepare: Callable[[Any, np.ndarray], np.ndarray]
    drive: Callable[[Any, Any, int], Driver]
    load: Callable[[str, str | os.PathLike[str] | None], Any]
    predictor: Callable[[SessionLike], Any]
    load_video: Callable[[str, str | os.PathLike[str] | None], Any] | None = None
    video_predictor: Callable[..., Any] | None = None
    map_checkpoint: Callable[[dict[str, Any]], dict[str, Any]] = dict
    marker: str = r"(?!)"
    exchanges: Callable[[Mapping[str, np.ndarray]], list[Exchange]] = lambda params: []
    golden: GoldenCheck | None = None
    input_range: Callable[[Any], PixelRange | None] = lambda spec: None
    searched_keys: str = r"(?!)"
    foldable_signs: str = r"(?!)"
    links: Callable[[Any, Mapping[str, np.ndarray], Mapping[str, int]], Links] | None = None
    prompting: Prompting | None = None
    timing: Timing | None = None

    def marks(self, names: Iterable[str]) -> bool:
        """Whether a checkpoint with these names is one of this family."""
        return any(re.fullmatch(self.marker, name) for name in names)

    def function(self, purpose: str) -> FunctionDescription:
        """Return the function of a purpose.

        Raises
        ------
        UnsupportedModelError
            If the family has none.
        """
        for each in self.functions:
            if each.purpose == purpose:
                return each
        raise UnsupportedModelError(
            f"{self.title} has no function to {purpose}; it has {', '.join(each.purpose for each in self.functions)}"
        )

    def passed_outputs(self, giver: str, taker: str) -> tuple[int, ...]:
        """Return the positions of the outputs of one function that another one takes; `giver`, `taker` are purposes."""
        taken = {each.name for each in self.function(taker).inputs}
        return tuple(index for index, each in enumerate(self.function(giver).outputs) if each.name in taken)

    def function_name(self, purpose: str) -> str:
        """Return the name of the function of a purpose; UnsupportedModelError if there is none."""
        return self.function(purpose).name

    def role(self, layer: str) -> LayerRole | None:
        """Return the role of a layer; None if no pattern matches its name."""
        return next((role for pattern, role in self._patterns if pattern.fullmatch(layer)), None)

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], LayerRole]]:
        return [(re.compile(role.pattern), role) for role in self.roles]

    def unit(self, layer: str) -> str | None:
        """Return the name of the reconstruction unit that a layer belongs to; None if it belongs to none."""
        found = re.match(self.units, layer)
        return found.group(0) if found else None

    def dim(self, name: str) -> SymbolicDim:
        """Return a symbolic dimension by the name of its symbol.

        Raises
        ------
        UnsupportedModelError
            If the family has none of that name.
        """
        for each in self.dims:
            if each.name == name:
                return each
        raise UnsupportedModelError(
            f"the symbolic dimension {name!r} is not described; {self.title} has "
            f"{', '.join(f'{each.name} ({each.meaning})' for each in self.dims) or 'none'}. Add it to the description."
        )

    def variant(self, name: str) -> Variant:
        """Return a model type by name; UnsupportedModelError if the family has none of that name."""
        for each in self.variants:
            if each.name == name:
                return each
        names = ", ".join(each.name for each in self.variants)
        raise UnsupportedModelError(f"unknown model type {name!r}; expected one of {names}")
