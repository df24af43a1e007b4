"""Phase 2: mark the quantization sites.

The input of a quantized linear layer or convolution and the query, key and value of an attention each pass through an
``ahcq.quantize`` with a stable site name; the probabilities of an attention are a site inside it. Sites are those of
the published method (docs/quantizers.md#site-placement) and, where the recipe says so, the pixels that the patch
embedding reads; everything else stays in float.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tvm import relax
from tvm.ir import IRModule

from tvm_ahcq import ir as ahcq
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.models.description import ATTENTION, PIXELS, SITE_ROLES, ModelFamily
from tvm_ahcq.quantizers.core.recipe import Recipe

from .coverage import require_coverage
from .rewrite import Definitions, bindings, functions, rewrite_module

ACTIVATIONS = {"relax.nn.gelu": "gelu", "relax.nn.relu": "relu"}
TABLE_QUANTIZERS = ("hluq",)
"""A table quantizer absorbs the non-linearity before it: both together are one table of intervals."""


def annotate(mod: IRModule, recipe: Recipe, family: ModelFamily) -> IRModule:
    """Insert the quantization sites of `recipe` into a canonical module.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.canonicalise.canonicalise`.
    recipe : Recipe
        Quantizer kinds and bits.
    family : ModelFamily
        Roles of the layers.

    Returns
    -------
    tvm.IRModule
        The same functions with ``ahcq.quantize`` at every site; float results are unchanged until quantizers are set.

    Raises
    ------
    UnsupportedModelError
        If an operator has no role in the description, or a form that cannot be quantized as its role says; all such
        operators are listed (:mod:`.coverage`).
    """
    annotated = rewrite_module(mod, lambda defs: _plan(defs, recipe, family))
    require_coverage(annotated, recipe, family)
    return annotated


def _plan(defs: Definitions, recipe: Recipe, family: ModelFamily) -> dict[relax.Var, relax.Expr]:
    plan = {}
    for binding in bindings(defs.func):
        value = binding.value
        layer = is_op(value, "relax.ahcq.linear") or is_op(value, "relax.ahcq.conv2d")
        if not layer and not is_op(value, "relax.ahcq.attention"):
            continue
        role = family.role(str(value.attrs["name"]))
        if role is None:
            continue
        if layer and role.role in SITE_ROLES:
            # codes are of the parameter as it is: a kernel that was filled up or turned around has none
            coded = defs.param(value.args[1]) is not None
            if coded and (quantizer := _quantizer(value, role.role, recipe)) is not None:
                plan[binding.var] = _with_quantized_input(defs, value, recipe, quantizer)
        elif not layer and role.role == ATTENTION:
            plan[binding.var] = _with_quantized_operands(value, recipe)
    return plan


def _quantizer(layer: relax.Call, role: str, recipe: Recipe) -> str | None:
    """Return the kind of quantizer in front of a layer; None where the layer cannot have one, or the recipe has none.

    Layers that read pixels are quantized as linear layers, that is, if their patches do not overlap: ``ahcq.im2col``
    takes stride 1.
    """
    if role != PIXELS:
        return recipe.quantizer_for(role)
    return PIXELS if recipe.pixels is not None and is_op(layer, "relax.ahcq.linear") else None


def _with_quantized_input(defs: Definitions, layer: relax.Call, recipe: Recipe, kind: str) -> relax.Call:
    x, activation = layer.args[0], "identity"
    if kind in TABLE_QUANTIZERS and (activated := defs.call(x, *ACTIVATIONS)) is not None:
        x, activation = activated.args[0], ACTIVATIONS[activated.op.name]
    site = f"{layer.attrs['name']}.input"
    x = ahcq.quantize(x, site=site, kind=kind, bits=recipe.bits_of_site(site, kind == PIXELS), activation=activation)
    return relax.Call(layer.op, [x, *layer.args[1:]], attrs=layer.attrs)


def _with_quantized_operands(attention: relax.Call, recipe: Recipe) -> relax.Call:
    name, operands = str(attention.attrs["name"]), []
    for role, arg in zip("qkv", attention.args[:3], strict=True):
        site, kind = f"{name}.{role}", recipe.quantizer_for("operand")
        operands.append(ahcq.quantize(arg, site=site, kind=kind, bits=recipe.bits_of_site(site)))
    return ahcq.attention(
        *operands,
        *attention.args[3:],
        name=name,
        scale=float(attention.attrs["scale"]),
        kind=recipe.quantizer_for("softmax"),
        bits=recipe.bits_of_site(f"{name}.probs"),
    )


@dataclass(frozen=True)
class Layer:
    """A layer whose input is a quantization site.

    Attributes
    ----------
    name : str
        Of its module.
    weight : str
        Parameter, output channels first.
    bias : str or None
        Parameter, if the layer has one.
    site : str
        Quantization site of its input.
    """

    name: str
    weight: str
    bias: str | None
    site: str


def reads_pixels(kinds: Mapping[str, tuple[str, int]], layer: Layer) -> bool:
    """Return True if a layer reads pixels, given the :func:`sites` of its module."""
    return kinds[layer.site][0] == PIXELS


def layers(mod: IRModule) -> dict[str, Layer]:
    """Return every layer of an annotated module whose input is a site, by name, in graph order."""
    result: dict[str, Layer] = {}
    for _, func in functions(mod):
        defs = Definitions(func)
        for binding in bindings(func):
            call = binding.value
            if not (is_op(call, "relax.ahcq.linear") or is_op(call, "relax.ahcq.conv2d")):
                continue
            site = defs.call(call.args[0], "relax.ahcq.quantize")
            if site is not None:
                name, weight = str(call.attrs["name"]), defs.param(call.args[1])
                bias = defs.param(call.args[2]) if len(call.args) > 2 else None
                result[name] = Layer(name, str(weight), bias, str(site.attrs["site"]))
    return result


def sites(mod: IRModule) -> dict[str, tuple[str, int]]:
    """Return quantizer kind and bits of every site of an annotated module, by name, in graph order."""
    result: dict[str, tuple[str, int]] = {}
    for _, func in functions(mod):
        for binding in bindings(func):
            value = binding.value
            if is_op(value, "relax.ahcq.quantize"):
                result[str(value.attrs["site"])] = (str(value.attrs["kind"]), int(value.attrs["bits"]))
            elif is_op(value, "relax.ahcq.attention") and int(value.attrs["bits"]):
                result[f"{value.attrs['name']}.probs"] = (str(value.attrs["kind"]), int(value.attrs["bits"]))
    return result
