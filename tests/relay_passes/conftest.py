"""Model families with roles of the test's choice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tvm_ahcq.models.description import ModelFamily, SymbolicDim


@pytest.fixture(scope="session")
def make_family() -> Callable[..., ModelFamily]:
    """Function of roles by pattern, and of symbolic dimensions: a family that has them and nothing else of its own."""
    from tvm_ahcq.models.description import FLOAT, LayerRole
    from tvm_ahcq.models.sam.family import SAM

    def make(roles: dict[str, str], dims: tuple[SymbolicDim, ...] = ()) -> ModelFamily:
        described = (LayerRole(name, role, "a test" if role == FLOAT else "") for name, role in roles.items())
        return replace(SAM, name="toy", title="Toy", roles=tuple(described), dims=dims)

    return make
