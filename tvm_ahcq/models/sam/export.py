"""Upstream SAM module -> Relax functions ``encode_image``, ``decode`` and ``decode_mask`` in one IRModule.

The three wrappers below call the upstream submodules; only what upstream's ``forward`` does in a way that does not
export (boolean assignment by label) or that copies the image once a prompt (``repeat_interleave``) is written anew.
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

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from torch import fx
    from tvm.relax.frontend.torch.base_fx_graph_translator import BaseFXGraphImporter

_LABELS = {-1.0: None, 0.0: 0, 1.0: 1, 2.0: 2, 3.0: 3}
"""Prompt label -> row of ``prompt_encoder.point_embeddings``; None is padding (``not_a_point_embed``)."""


class _EncodeImage(nn.Module):
    """(1, 3, S, S) normalised image -> (1, C, h, w) embedding."""

    def __init__(self, sam: Sam):
        super().__init__()
        self.image_encoder = sam.image_encoder

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.image_encoder(image)


class _Decoder(nn.Module):
    """Prompts -> four masks and their predicted IoU; what both ways of prompting share."""

    def __init__(self, sam: Sam):
        super().__init__()
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.register_buffer("dense_pe", sam.prompt_encoder.get_dense_pe().detach(), persistent=False)

    def embed_points(self, coords: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """(B, N, 2) pixels and (B, N) labels -> (B, N, C), as upstream's ``_embed_points`` and ``_embed_boxes``."""
        encoder = self.prompt_encoder
        encoded = encoder.pe_layer._pe_encoding((coords + 0.5) / encoder.input_image_size[0])
        tokens = encoded
        for label, row in _LABELS.items():
            chosen = (labels == label).unsqueeze(-1)
            padding = row is None
            token = encoder.not_a_point_embed.weight if padding else encoded + encoder.point_embeddings[row].weight
            tokens = torch.where(chosen, token, tokens)
        return tokens

    def predict(self, source: torch.Tensor, prompts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(1 or B, C, h, w) embedding plus mask embedding and (B, N, C) prompts -> (B, 4, 4h, 4w) and (B, 4).

        Without a mask prompt the image side enters the transformer once, not once a prompt: its first projections are
        shared, and the batch appears when it first attends to the prompts.
        """
        decoder = self.mask_decoder
        count = decoder.num_mask_tokens
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).unsqueeze(0)
        tokens = torch.cat([own.expand(prompts.shape[0], -1, -1), prompts], dim=1)
        tokens, source_tokens = decoder.transformer(source, self.dense_pe, tokens)

        channels, height, width = source.shape[1:]
        upscaled = decoder.output_upscaling(source_tokens.transpose(1, 2).reshape(-1, channels, height, width))
        kernels = [mlp(tokens[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
        masks = torch.stack(kernels, dim=1) @ upscaled.flatten(2)
        return masks.reshape(-1, count, *upscaled.shape[2:]), decoder.iou_prediction_head(tokens[:, 0])


class _Decode(_Decoder):
    """Prompts without a mask."""

    def forward(
        self, embedding: torch.Tensor, point_coords: torch.Tensor, point_labels: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dense = self.prompt_encoder.no_mask_embed.weight.reshape(1, -1, 1, 1)
        return self.predict(embedding + dense, self.embed_points(point_coords, point_labels))


class _DecodeMask(_Decoder):
    """Prompts with a mask from an earlier call (low-resolution logits)."""

    def forward(
        self, embedding: torch.Tensor, point_coords: torch.Tensor, point_labels: torch.Tensor, mask_input: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        dense = self.prompt_encoder.mask_downscaling(mask_input)
        return self.predict(embedding + dense, self.embed_points(point_coords, point_labels))


_WRAPPERS = {"encode_image": _EncodeImage, "decode": _Decode, "decode_mask": _DecodeMask}


def wrapper(sam: Sam, name: str) -> nn.Module:
    """The torch form of the functions ``encode_image``, ``decode`` and ``decode_mask``, which any exporter can take."""
    return _WRAPPERS[name](sam)


def export_sam(sam: Sam) -> tuple[tvm.IRModule, dict[str, list[str]]]:
    """Import an upstream SAM into Relax.

    Parameters
    ----------
    sam : Sam
        In evaluation mode; weights are shared, not copied, and none end up in the IRModule.

    Returns
    -------
    module : tvm.IRModule
        ``encode_image``, ``decode`` and ``decode_mask``; see :func:`export_function`.
    function_params : dict of str to list of str
        State-dict names of the parameters of each function, in order.

    Raises
    ------
    UnsupportedModelError
        When ``torch.export`` or TVM cannot take the model.
    """
    module, function_params = tvm.IRModule(), {}
    for name in _WRAPPERS:
        module[name], function_params[name] = export_function(sam, name)
    return module, function_params


def export_function(sam: Sam, name: str) -> tuple[relax.Function, list[str]]:
    """Import one of the functions ``encode_image``, ``decode`` and ``decode_mask``.

    Returns
    -------
    function : relax.Function
        Its parameters follow its inputs and are called as in the state dict with '.' replaced by '_'. Positional
        encodings and index tables are folded constants.
    params : list of str
        State-dict names of the parameters, in order.
    """
    size, grid = sam.image_encoder.img_size, sam.prompt_encoder.image_embedding_size
    batch, points = Dim("B", min=1), Dim("N", min=1)
    prompts = {"point_coords": torch.zeros(2, 3, 2), "point_labels": torch.zeros(2, 3)}
    embedding = {"embedding": torch.zeros(1, sam.mask_decoder.transformer_dim, *grid)}
    inputs = {
        "encode_image": {"image": torch.zeros(1, 3, size, size)},
        "decode": embedding | prompts,
        "decode_mask": embedding | prompts | {"mask_input": torch.zeros(2, 1, *sam.prompt_encoder.mask_input_size)},
    }[name]
    dynamic = {"point_coords": {0: batch, 1: points}, "point_labels": {0: batch, 1: points}, "mask_input": {0: batch}}
    try:
        with torch.no_grad():
            module = wrapper(sam, name).eval()
            shapes = {key: dynamic.get(key) for key in inputs}
            program = torch.export.export(module, (), inputs, dynamic_shapes=shapes, strict=False)
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
    return _rename(function, name, targets)


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


_CONVERT = {"index.Tensor": _convert_index, "select.int": _convert_select, "arange.default": _convert_arange}


def _rename(function: relax.Function, name: str, targets: Mapping[str, str]) -> tuple[relax.Function, list[str]]:
    """Name parameters after the state dict, drop unused ones, and call the symbolic dimensions B and N."""
    inputs = int(function.attrs["num_input"])
    used = set(relax.analysis.free_vars(function.body))
    kept = [var for i, var in enumerate(function.params) if i < inputs or var in used]
    names = [targets[var.name] for var in kept[inputs:]]
    hints = [var.name for var in kept[:inputs]] + [n.replace(".", "_") for n in names]
    fresh = [relax.Var(hint, var.ty) for hint, var in zip(hints, kept, strict=True)]
    body = function.bind_params(dict(zip(kept, fresh, strict=True))).body
    attrs = tvm.ir.make_node("ir.DictAttrs", num_input=inputs)
    function = relax.Function(fresh, body, function.ret_ty, is_pure=True, attrs=attrs)
    symbolic = [dim for var in fresh[:inputs] for dim in var.ty.shape.values if tvm.ir.is_prim_var(dim)]
    names_of = dict(zip(dict.fromkeys(symbolic), ("B", "N"), strict=False))
    function = function.bind_symbolic_vars({dim: tirx.Var(text, "int64") for dim, text in names_of.items()})
    return function.with_attr("global_symbol", name), names
