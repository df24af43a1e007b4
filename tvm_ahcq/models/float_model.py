"""A float model: Relax functions with their weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .description import ModelFamily
from .registry import find_family

if TYPE_CHECKING:
    from tvm.ir import IRModule


@dataclass(frozen=True, eq=False)
class FloatModel:
    """A float model as Relax functions with its weights beside them.

    Attributes
    ----------
    spec : ModelSpec
        Figures, of the family's own class.
    module : tvm.IRModule
        The family's functions.
    params : dict of str to numpy.ndarray
        float32, by name in the state dict.
    function_params : dict of str to list of str
        Names of the parameters that each function takes after its inputs, in order.
    """

    spec: Any
    module: IRModule
    params: dict[str, np.ndarray] = field(repr=False)
    function_params: dict[str, list[str]] = field(repr=False)

    @property
    def name(self) -> str:
        """Model type."""
        return self.spec.name

    @property
    def family(self) -> ModelFamily:
        """The description of the model."""
        return find_family(self.spec.family)
