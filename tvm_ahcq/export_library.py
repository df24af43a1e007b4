"""Export of compiled modules: shared libraries, and their entries in the manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import tvm
from tvm.ir import IRModule

from tvm_ahcq.runtime.manifest import FunctionSpec, TargetSpec, TensorSpec

from .target import HostTarget, link_options


def target_spec(host: HostTarget, several: bool) -> TargetSpec:
    """A target as a bundle names it; where there are several, records cannot say how weights are packed."""
    return TargetSpec(host.name, host.triple, host.cpu_features, host.layout if several else "")


def function_specs(module: IRModule, function_params: Mapping[str, list[str]]) -> dict[str, FunctionSpec]:
    """Inputs and parameters of each function of a module, as the manifest names them."""
    specs = {}
    for name, params in function_params.items():
        function = module[name]
        inputs = function.params[: int(function.attrs["num_input"])]
        specs[name] = FunctionSpec(
            tuple(TensorSpec(var.name, _shape(var), str(var.ty.dtype)) for var in inputs), tuple(params)
        )
    return specs


def _shape(var) -> tuple[int | str, ...]:
    return tuple(int(d) if isinstance(d, tvm.tirx.IntImm) else str(d) for d in var.ty.shape.values)


def export_library(executable: tvm.runtime.Executable, host: HostTarget) -> bytes:
    """The executable as a shared library, linked for the target's architecture."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "library.so"
        # without symbols and debugging information, which are a third of it and of no use to a deployed file
        executable.export_library(str(path), options=["-Wl,--strip-all"], **link_options(host))
        return path.read_bytes()
