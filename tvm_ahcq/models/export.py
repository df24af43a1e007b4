"""Import of torch modules into Relax by ``torch.export``; parameters are named after the state dict.

Linear layers, layer norms, GELU, softmax and einsum stay whole operators: ``torch.export`` is not decomposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
import tvm
from torch import nn
from torch.export import Dim
from tvm import relax, tirx
from tvm.relax.frontend.torch import from_exported_program

from tvm_ahcq.errors import UnsupportedModelError

from .graph_cache import cached

if TYPE_CHECKING:
    from torch import fx
    from tvm.relax.frontend.torch.base_fx_graph_translator import BaseFXGraphImporter


def export_module(
    module: nn.Module,
    name: str,
    inputs: Mapping[str, torch.Tensor],
    symbolic: Mapping[str, Mapping[int, str]],
) -> tuple[relax.Function, list[str]]:
    """Import the ``forward`` of a module as a Relax function; from the cache of graphs, if it was imported before.

    Parameters
    ----------
    module : torch.nn.Module
        Its submodules give the parameters their names. Weights are shared, and none end up in the function.
    name : str
        Name of the function.
    inputs : mapping of str to torch.Tensor
        Example inputs by parameter name of ``forward``, in its order. Symbolic dimensions are 2 or larger.
    symbolic : mapping of str to mapping of int to str
        Names of symbolic dimensions by input and axis; equal names are one dimension.

    Returns
    -------
    function : relax.Function
        Its parameters follow its inputs and are called as in the state dict with '.' replaced by '_'. Positional
        encodings and index tables are folded constants.
    params : list of str
        State-dict names of the parameters, in order.

    Raises
    ------
    UnsupportedModelError
        When ``torch.export`` or TVM cannot take the module.
    """
    return cached(module, name, inputs, symbolic, lambda: _import(module, name, inputs, symbolic))


def _import(
    module: nn.Module,
    name: str,
    inputs: Mapping[str, torch.Tensor],
    symbolic: Mapping[str, Mapping[int, str]],
) -> tuple[relax.Function, list[str]]:
    """Import a module by ``torch.export``."""
    dims = {text: Dim(text, min=1) for axes in symbolic.values() for text in axes.values()}
    shapes = {
        key: {axis: dims[text] for axis, text in symbolic[key].items()} if key in symbolic else None for key in inputs
    }
    try:
        with torch.no_grad():
            program = torch.export.export(module.eval(), (), dict(inputs), dynamic_shapes=shapes, strict=False)
        imported = from_exported_program(
            program,
            keep_params_as_input=True,
            unwrap_unit_return_tuple=True,
            run_ep_decomposition=False,
            custom_convert_map=_CONVERT,
        )
    except Exception as error:
        raise UnsupportedModelError(f"{name}: the model cannot be imported into Relax: {error}") from error
    targets = {spec.arg.name: spec.target for spec in program.graph_signature.input_specs}
    imported["main"] = imported["main"].without_attr("params")
    function = tvm.transform.Sequential(_CLEAN_UP)(imported)["main"]
    function, params = _name_parameters(function, targets)
    return _name_dims(function, symbolic).with_attr("global_symbol", name), params


_CLEAN_UP = [
    relax.transform.EliminateCommonSubexpr(),  # folding compiles each operator: it should meet each index table once
    relax.transform.FoldConstant(),
    relax.transform.EliminateCommonSubexpr(),
    relax.transform.CanonicalizeBindings(),
    relax.transform.DeadCodeElimination(["main"]),
]


def _convert_index(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    """``table[index]``: a take with clipped indices; TVM's own conversion leaves them unchecked and warns."""
    table, indices = cast("tuple[fx.Node, Sequence[fx.Node]]", node.args)
    if len(indices) != 1:
        raise UnsupportedModelError(f"{node}: indexing by {len(indices)} tensors at once is not supported")
    taken = relax.op.take(importer.env[table], importer.env[indices[0]], axis=0, mode="clip")
    return importer.block_builder.emit(taken)


def _convert_select(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    """``x.select(axis, position)``, checked likewise."""
    x, axis, position = node.args
    index = relax.const(position, "int64")
    return importer.block_builder.emit(relax.op.take(importer.env[x], index, axis=axis, mode="clip"))


def _convert_arange(node: fx.Node, _importer: BaseFXGraphImporter) -> tvm.ir.GenericConst:
    """``arange(n)`` as a constant, so that the relative-position index tables fold."""
    return relax.const(np.arange(*cast("tuple[int, ...]", node.args)), "int64")


def _convert_attention(node: fx.Node, importer: BaseFXGraphImporter) -> relax.Var:
    """``scaled_dot_product_attention(q, k, v)`` spelled out: TVM's own operator fails with symbolic keys."""
    if len(node.args) > 3 or node.kwargs:
        raise UnsupportedModelError(f"{node}: attention with a mask, dropout or its own scale is not supported")
    q, k, v = (importer.env[operand] for operand in node.args)
    *leading, rows, columns = range(len(k.ty.shape.values))
    emit, scale = importer.block_builder.emit, float(int(q.ty.shape.values[-1])) ** -0.5
    scaled = emit(relax.op.multiply(q, relax.const(scale, "float32")))
    logits = emit(relax.op.matmul(scaled, emit(relax.op.permute_dims(k, [*leading, columns, rows]))))
    return emit(relax.op.matmul(emit(relax.op.nn.softmax(logits, axis=-1)), v))


_CONVERT = {
    "arange.default": _convert_arange,
    "index.Tensor": _convert_index,
    "scaled_dot_product_attention.default": _convert_attention,
    "select.int": _convert_select,
}


def _name_parameters(function: relax.Function, targets: Mapping[str, str]) -> tuple[relax.Function, list[str]]:
    """Name parameters after the state dict, and drop unused ones."""
    inputs = int(function.attrs["num_input"])
    used = set(relax.analysis.free_vars(function.body))
    kept = [var for i, var in enumerate(function.params) if i < inputs or var in used]
    names = [targets[var.name] for var in kept[inputs:]]
    hints = [var.name for var in kept[:inputs]] + [n.replace(".", "_") for n in names]
    fresh = [relax.Var(hint, var.ty) for hint, var in zip(hints, kept, strict=True)]
    body = function.bind_params(dict(zip(kept, fresh, strict=True))).body
    attrs = tvm.ir.make_node("ir.DictAttrs", num_input=inputs)
    return relax.Function(fresh, body, function.ret_ty, is_pure=True, attrs=attrs), names


def _name_dims(function: relax.Function, symbolic: Mapping[str, Mapping[int, str]]) -> relax.Function:
    """Give the symbolic dimensions of the inputs the names that were asked for."""
    names: dict[tirx.Var, str] = {}
    for var in function.params[: int(function.attrs["num_input"])]:
        for axis, text in symbolic.get(var.name, {}).items():
            dim = var.ty.shape.values[axis]
            if tvm.ir.is_prim_var(dim):
                names.setdefault(dim, text)
    return function.bind_symbolic_vars({dim: tirx.Var(text, "int64") for dim, text in names.items()})
