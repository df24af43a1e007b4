"""Phase 6: from quantization sites to integer operators.

Encoders take the place of ``ahcq.quantize``, integer operators that of the layers behind them. Weights become codes.
All results of calibration become tensors that the function takes as parameters, so that the compiled code depends on
shapes and bounds of integers alone. Offsets of table quantizers fold into biases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from tvm import relax, tirx
from tvm.ir import Expr, IRModule

from tvm_ahcq import ir as ahcq
from tvm_ahcq.errors import QuantTableError, UnsupportedModelError
from tvm_ahcq.ir.register import is_op
from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import TableParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.intervals import interval_encoder
from tvm_ahcq.quantizers.core.narrow_sums import exact_steps
from tvm_ahcq.quantizers.core.reference import MAX_KEYS, MAX_KEYS_ROW_RELATIVE
from tvm_ahcq.quantizers.core.table import QuantTable
from tvm_ahcq.runtime.weights import QLinearWeight, centred

from .annotate import sites
from .rewrite import PARAM_NAMES, Definitions, bindings, functions, replace_values

Tensor = np.ndarray | QLinearWeight


@dataclass(frozen=True)
class Realised:
    """An integer module and its parameters.

    Attributes
    ----------
    module : tvm.IRModule
        Functions of (inputs, parameter tensors); a :class:`QLinearWeight` stands for three parameters in a row:
        packed operands, multiplier, correction.
    tensors : dict
        Parameter records by name.
    function_params : dict
        Names of the records of each function, in order.
    covered, total : int
        Quantization sites on integers, and in all. Annotation has made sure that every layer and attention which the
        description wants quantized has its sites (:mod:`.coverage`).
    missing : list of str
        Sites that are not on integers.
    """

    module: IRModule
    tensors: dict[str, Tensor]
    function_params: dict[str, list[str]]
    covered: int
    total: int
    missing: list[str] = field(default_factory=list)


def realise(mod: IRModule, params: Mapping[str, np.ndarray], table: QuantTable, layout: str) -> Realised:
    """Rewrite an annotated module to integers.

    Parameters
    ----------
    mod : tvm.IRModule
        From :func:`.annotate.annotate`.
    params : mapping of str to numpy.ndarray
        Float parameters; weights that have codes are not read.
    table : QuantTable
        Quantizers of all sites, and codes of all weights (:meth:`.QuantTable.with_codes`).
    layout : str
        Of packed weights (:func:`tvm_ahcq.runtime.weights.pack`).

    Raises
    ------
    QuantTableError
        If the table lacks a site or weight, or holds one that the model has not.
    UnsupportedModelError
        If channels cannot be packed, or an attention has more keys than its integers can sum over.
    """
    expected = sites(mod)
    _check_table(expected, table)
    result = IRModule(attrs=mod.attrs)
    tensors: dict[str, Tensor] = {}
    function_params: dict[str, list[str]] = {}
    realised: set[str] = set()
    for var, func in functions(mod):
        realiser = _Realiser(Definitions(func), params, table, layout)
        rewritten = replace_values(mod, func, realiser.plan())
        result[var.name_hint], function_params[var.name_hint] = realiser.signature(var.name_hint, rewritten)
        tensors |= {name: realiser.tensors[name] for name in function_params[var.name_hint]}
        realised |= realiser.realised
    missing = [site for site in expected if site not in realised]
    return Realised(result, tensors, function_params, len(realised), len(expected), missing)


def _check_table(expected: Mapping[str, tuple[str, int]], table: QuantTable) -> None:
    unknown = sorted(set(table.sites) - set(expected))
    lacking = sorted(set(expected) - set(table.sites))
    if unknown or lacking:
        raise QuantTableError(
            f"The quantization table of {table.model!r} does not fit: it lacks {lacking[:3] or 'nothing'} and has "
            f"{unknown[:3] or 'nothing'} too much (of {len(lacking)} and {len(unknown)}); calibrate this model again."
        )


def _check_keys(name: str, keys: Expr, row_relative: bool) -> None:
    limit = MAX_KEYS_ROW_RELATIVE if row_relative else MAX_KEYS
    if isinstance(keys, tirx.IntImm) and int(keys) > limit:
        raise UnsupportedModelError(
            f"{name}: attends to {int(keys)} keys; integer attention sums over at most {limit} within 32 bits. "
            "Choose a smaller image size, or windows for this block"
            + ("." if row_relative else ", or the softmax quantizer 'row_relative' in the recipe.")
        )


class _Realiser:
    """Plans the integer form of one function and collects its parameters."""

    def __init__(self, defs: Definitions, params: Mapping[str, np.ndarray], table: QuantTable, layout: str):
        self.defs, self.params, self.table, self.layout = defs, params, table, layout
        self.tensors: dict[str, Tensor] = {}
        self.vars: dict[str, list[relax.Var]] = {}
        self.realised: set[str] = set()

    def plan(self) -> dict[relax.Var, relax.Expr]:
        """Return new values of the layers and attentions whose inputs are sites."""
        handlers = {
            "relax.ahcq.linear": self._linear,
            "relax.ahcq.conv2d": self._conv2d,
            "relax.ahcq.attention": self._attention,
        }
        plan = {}
        for binding in bindings(self.defs.func):
            for name, handler in handlers.items():
                if is_op(binding.value, name) and (value := handler(binding.value)) is not None:
                    plan[binding.var] = value
        return plan

    def signature(self, name: str, func: relax.Function) -> tuple[relax.Function, list[str]]:
        """Return `func` with the parameters that it uses now, and the names of their records."""
        func = relax.analysis.remove_all_unused(func)
        inputs = [var for var in self.defs.func.params if var not in self.defs.param_names]
        used = set(relax.analysis.free_vars(func.body))
        floats = {text: [var] for var, text in self.defs.param_names.items() if var in used}
        self.tensors |= {text: np.asarray(self.params[text], np.float32) for text in floats}
        records = floats | {text: group for text, group in self.vars.items() if any(var in used for var in group)}
        flat = [var for group in records.values() for var in group]
        result = relax.Function([*inputs, *flat], func.body, func.ret_ty, is_pure=True)
        result = result.with_attr("global_symbol", name).with_attr("num_input", len(inputs))
        return result.with_attr(PARAM_NAMES, [var.name for var in flat]), list(records)

    def _tensor(self, name: str, array: np.ndarray) -> relax.Var:
        self.tensors[name] = array
        if name not in self.vars:
            var = relax.Var(name.replace(".", "_"), relax.TensorType(list(array.shape), str(array.dtype)))
            self.vars[name] = [var]
        return self.vars[name][0]

    def _weight(self, name: str, weight: QLinearWeight) -> list[relax.Var]:
        self.tensors[name] = weight
        rows, padded, groups = len(weight.codes), len(weight.index), len(weight.group_sizes)
        packed = [-(-rows // 16), padded // 4, 16, 4] if self.layout == "vnni16" else [rows, padded]
        scales = [groups, rows]
        types = {"packed": (packed, "int8"), "multiplier": (scales, "float32"), "correction": (scales, "int32")}
        stem = name.replace(".", "_")
        self.vars[name] = [relax.Var(f"{stem}_{part}", relax.TensorType(*spec)) for part, spec in types.items()]
        return self.vars[name]

    def _parameter(self, expr: relax.Expr) -> str:
        """Return the name of the parameter that `expr` is."""
        name = self.defs.param(expr)
        assert name is not None, "canonicalise makes layers of parameters alone"
        return name

    def _site(self, expr: relax.Expr) -> tuple[str, relax.Expr, str] | None:
        """Return name, float value and non-linearity of the site that `expr` is; None if it is not one."""
        call = self.defs.call(expr, "relax.ahcq.quantize")
        if call is None:
            return None
        return str(call.attrs["site"]), call.args[0], str(call.attrs["activation"])

    def _uniform(self, site: str) -> UniformParams:
        params = self.table.sites[site]
        if not isinstance(params, UniformParams):
            raise QuantTableError(
                f"{site}: integer attention needs a uniform quantizer here, not {params.kind!r}; calibrate again."
            )
        return params

    def _encode(self, site: str, x: relax.Expr, activation: str) -> _Encoded:
        """Return the integer form of a site."""
        self.realised.add(site)
        params, channels = self.table.sites[site], int(x.ty.shape.values[-1])
        groups = _Groups.of(site, params, channels)
        if isinstance(params, TableParams):
            thresholds, operands = interval_encoder(params.codebook(), activation)
            encoder = [self._tensor(f"{site}.thresholds", thresholds), self._tensor(f"{site}.operands", operands)]
            found = ahcq.encode_intervals(x, *encoder, site=site)
            return _Encoded(found, groups, int(operands.max()), params.offset)
        arrays = {
            "index": groups.index,
            "bounds": groups.bounds,
            "scale": groups.scale,
            "zero_point": groups.zero_point,
        }
        args = [self._tensor(f"{site}.{key}", array) for key, array in arrays.items()]
        repeated = self.defs.call(x, "relax.broadcast_to")
        codes = ahcq.encode_affine(
            x if repeated is None else repeated.args[0],
            *args,
            site=site,
            bits=params.bits,
            identity=groups.identity,
        )
        if repeated is not None:  # encoding comes before repeating: fewer and smaller elements
            codes = relax.op.broadcast_to(codes, repeated.args[1])
        return _Encoded(codes, groups, 2**params.bits - 1)

    def _layer(self, name: str, encoded: _Encoded, weight: str, codes: np.ndarray, bias: np.ndarray) -> relax.Expr:
        """Return the product of `encoded` inputs and a weight, whose `codes` are a matrix ``(N, K)`` here."""
        groups, quantized = encoded.groups, self.table.weight(weight)
        record = QLinearWeight(
            codes,
            quantized.bits,
            quantized.scale,
            quantized.zero_point,
            groups.index,
            groups.sizes,
            groups.scale,
            groups.zero_point,
            self.layout,
        )
        folded = quantized.folded_bias(bias, encoded.offset)
        packed, *scales = self._weight(weight, record)
        bounds, bias_var = self._tensor(f"{name}.bounds", groups.bounds), self._tensor(f"{name}.bias", folded)
        args = (encoded.operands, packed, bounds, *scales, bias_var)
        return ahcq.grouped_linear(
            *args,
            name=name,
            layout=self.layout,
            weight_bits=quantized.bits,
            operand_max=encoded.operand_max,
            exact_steps=exact_steps(centred(record), encoded.operand_max),
        )

    def _linear(self, call: relax.Call) -> relax.Expr | None:
        site = self._site(call.args[0])
        if site is None:
            return None
        name, weight = str(call.attrs["name"]), self._parameter(call.args[1])
        bias_name = self.defs.param(call.args[2])
        bias = call.args[2].value.numpy() if bias_name is None else self.params[bias_name]
        codes = self.table.weight(weight).codes
        return self._layer(name, self._encode(*site), weight, codes.reshape(len(codes), -1), bias)

    def _conv2d(self, call: relax.Call) -> relax.Expr | None:
        site = self._site(call.args[0])
        if site is None:
            return None
        name, weight = str(call.attrs["name"]), self._parameter(call.args[1])
        weight_codes = self.table.weight(weight).codes
        outputs, channels, kernel, _ = weight_codes.shape
        encoded = self._encode(*site)
        groups = encoded.groups
        if not groups.identity or len(groups.sizes) > 1:
            raise UnsupportedModelError(
                f"{name}: a convolution needs a uniform input quantizer and 4 n channels, not {channels} in "
                f"{len(groups.sizes)} groups; choose 'uniform' for this site in the recipe."
            )
        zero = self._tensor(f"{site[0]}.zero_point", groups.zero_point)
        patches = ahcq.im2col(encoded.operands, zero, kernel=kernel)
        taps = _Groups(
            np.arange(kernel * kernel * channels, dtype=np.int32),
            (kernel * kernel * channels,),
            groups.scale,
            groups.zero_point,
            True,
        )
        matrix = weight_codes.transpose(0, 2, 3, 1).reshape(outputs, -1)
        return self._layer(
            name, replace(encoded, operands=patches, groups=taps), weight, matrix, np.zeros(outputs, np.float32)
        )

    def _attention(self, call: relax.Call) -> relax.Expr | None:
        operands = [site for site in map(self._site, call.args[:3]) if site is not None]
        if not int(call.attrs["bits"]) or len(operands) < 3:
            return None
        name = str(call.attrs["name"])
        self.realised.add(f"{name}.probs")
        head_dim = int(call.args[0].ty.shape.values[-1])
        rel_h, rel_w = [self.params[self._parameter(arg)] for arg in call.args[3:]] or (None, None)
        q, k, v = (self._uniform(f"{name}.{role}") for role in "qkv")
        constants, *tables = attention_constants(
            AttentionQuantizers(q, k, v, self.table.sites[f"{name}.probs"]),
            scale=float(call.attrs["scale"]),
            head_dim=head_dim,
            rel_h=rel_h,
            rel_w=rel_w,
        )
        _check_keys(name, call.args[1].ty.shape.values[-2], constants.row_relative)
        args = [
            *(self._encode(*site).operands for site in operands),
            self._tensor(f"{name}.constants", constants.scalars()),
            self._tensor(f"{name}.log_thresholds", constants.log_thresholds),
            self._tensor(f"{name}.table", constants.table),
            self._tensor(f"{name}.out_scale", np.array([constants.out_scale], np.float32)),
        ]
        rel_pos = [
            None if array is None else self._tensor(f"{name}.rel_pos_{axis}", array)
            for axis, array in zip("hw", tables, strict=True)
        ]
        return ahcq.log_attention(
            *args, *rel_pos, name=name, bits=max(q.bits, k.bits, v.bits), row_relative=constants.row_relative
        )


@dataclass(frozen=True)
class _Groups:
    """Channel groups of a site as the kernels see them: contiguous, padded to multiples of 4."""

    index: np.ndarray
    sizes: tuple[int, ...]
    scale: np.ndarray
    zero_point: np.ndarray
    identity: bool

    @property
    def bounds(self) -> np.ndarray:
        """``(G + 1,)`` int32: channels at which groups begin and end."""
        return np.cumsum([0, *self.sizes]).astype(np.int32)

    @staticmethod
    def of(site: str, params, channels: int) -> _Groups:
        """Groups of `channels` channels under the quantizer `params`."""
        scale: Sequence[float]
        zero: Sequence[int]
        if isinstance(params, TableParams):
            if channels % 4:
                raise UnsupportedModelError(f"{site}: {channels} channels; table quantizers need a multiple of 4.")
            scale, zero, member = [params.delta], [0], np.zeros(channels, int)
        elif isinstance(params, UniformParams):
            scale, zero, member = [params.scale], [params.zero_point], np.zeros(channels, int)
        elif isinstance(params, CagParams) and len(params.group_of) == channels:
            scale, zero, member = params.scales, params.zero_points, np.asarray(params.group_of)
        else:
            raise QuantTableError(
                f"{site}: a {type(params).__name__} does not fit {channels} channels; calibrate again."
            )
        parts = []
        for group in range(len(scale)):
            chosen = np.flatnonzero(member == group)
            parts.append(np.concatenate([chosen, np.full(-len(chosen) % 4, -1)]))
        index = np.concatenate(parts).astype(np.int32)
        identity = np.array_equal(index, np.arange(channels))  # one group, or the colours of a picture
        if not identity:  # as many channels however they are grouped: layers of one shape then share a kernel
            longest = -(-channels // 4) * 4 + 4 * (len(scale) - 1)
            parts[-1] = np.concatenate([parts[-1], np.full(longest - len(index), -1)])
            index = np.concatenate(parts).astype(np.int32)
        sizes = tuple(len(part) for part in parts)
        return _Groups(index, sizes, np.asarray(scale, np.float32), np.asarray(zero, np.int32), identity)


@dataclass(frozen=True)
class _Encoded:
    """Integer form of a site: operands up to `operand_max`, their channel groups, and the offset of their values."""

    operands: relax.Expr
    groups: _Groups
    operand_max: int
    offset: float = 0.0
