"""Manifest of a bundle: model, recipe, target, functions. Written as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from tvm_ahcq.errors import BundleError, UnsupportedModelError
from tvm_ahcq.models.description import ModelSpec
from tvm_ahcq.models.registry import find_family

FORMAT_VERSION = 3
"""Newest version of the bundle format that this package reads. A bundle is written in the oldest version that can
describe it: 1 for a single target, 2 for several, 3 with programs for an accelerator."""

FIRST_FAMILY = "sam"
"""Family of bundles whose manifest names none: they were written when there was one."""


@dataclass(frozen=True)
class TargetSpec:
    """Target of a library.

    Attributes
    ----------
    name : str
        As a user types it: ``"native"``, ``"generic"``, ...
    triple : str
        LLVM triple.
    cpu_features : tuple of str
        LLVM feature names that the CPU must have (``"avx512vnni"``, ``"amx-int8"``); empty for the baseline.
    layout : str
        How weights are packed for it (:func:`tvm_ahcq.runtime.weights.pack`); empty: as each record says.
    """

    name: str
    triple: str
    cpu_features: tuple[str, ...] = ()
    layout: str = ""


@dataclass(frozen=True)
class TensorSpec:
    """An input of a function; a dimension is a number, or the name of a symbolic one."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True)
class FunctionSpec:
    """Call convention of a function: its inputs, then its parameters by name of their records."""

    inputs: tuple[TensorSpec, ...]
    params: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """Everything a bundle says about itself, without its storage details.

    Attributes
    ----------
    model, target
        Figures of the model (:class:`.ModelSpec` of its family), and what the library was compiled for.
    others : tuple of TargetSpec
        Further targets that the bundle has a library for; all targets together are in order, best first.
    functions : dict of str to FunctionSpec
        By name, as the model's description names them.
    recipe : dict
        The quantization recipe; empty for a float model.
    bits : int
        Bits of activations and weights; 32 for a float model.
    sites : tuple of int
        Quantized sites on integers, and all of them.
    accelerator : dict or None
        :class:`~tvm_ahcq.runtime.offload.OffloadReport` in its JSON-able form; None on the host alone.
    weight_bits : float or None
        Stored bits per quantized weight, all told; filled in by the writer, None without quantized weights.
    created_by : str
        Package and version that wrote the bundle; filled in by the writer.
    format_version : int
        Filled in by the writer.
    kernels : dict
        For each target by name, and each of its kernels by symbol, what the kernel computes
        (:func:`tvm_ahcq.relay_passes.lower.kernel_table.describe`); empty in bundles that were written without.
    """

    model: ModelSpec
    target: TargetSpec
    functions: dict[str, FunctionSpec]
    recipe: dict[str, Any] = field(default_factory=dict)
    bits: int = 32
    sites: tuple[int, int] = (0, 0)
    accelerator: dict[str, Any] | None = None
    weight_bits: float | None = None
    created_by: str = ""
    format_version: int = FORMAT_VERSION
    others: tuple[TargetSpec, ...] = ()
    kernels: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    @property
    def targets(self) -> tuple[TargetSpec, ...]:
        """Every target that the bundle has a library for, best first."""
        return (self.target, *self.others)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self) | {"model": self.model.to_dict()}

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any]) -> Manifest:
        """Inverse of :meth:`to_dict`; fields that this version does not know are ignored.

        Raises
        ------
        BundleError
            A field is missing or of a wrong type.
        """
        try:
            model, target = stored["model"], stored["target"]
            return cls(
                model=find_family(model.get("family", FIRST_FAMILY)).spec.from_dict(model),
                target=_target(target),
                functions={name: _function(spec) for name, spec in stored["functions"].items()},
                recipe=dict(stored["recipe"]),
                bits=int(stored["bits"]),
                sites=(int(stored["sites"][0]), int(stored["sites"][1])),
                accelerator=stored["accelerator"],
                weight_bits=stored["weight_bits"],
                created_by=str(stored["created_by"]),
                format_version=int(stored["format_version"]),
                others=tuple(_target(other) for other in stored.get("others", ())),
                kernels=_kernels(stored.get("kernels", {})),
            )
        except UnsupportedModelError as error:
            raise BundleError(f"{error}; update tvm-ahcq, or recompile the model") from error
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise BundleError(f"the manifest lacks a field or has one of a wrong type: {error!r}") from error


def _target(stored: Mapping[str, Any]) -> TargetSpec:
    features, layout = tuple(stored["cpu_features"]), str(stored.get("layout", ""))
    return TargetSpec(str(stored["name"]), str(stored["triple"]), features, layout)


def _kernels(stored: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    return {
        str(target): {str(symbol): {**each, "kind": str(each["kind"])} for symbol, each in kernels.items()}
        for target, kernels in stored.items()
    }


def _function(stored: Mapping[str, Any]) -> FunctionSpec:
    inputs = tuple(TensorSpec(str(t["name"]), tuple(t["shape"]), str(t["dtype"])) for t in stored["inputs"])
    return FunctionSpec(inputs, tuple(stored["params"]))
