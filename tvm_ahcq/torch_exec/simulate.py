"""Torch semantics of the quantization sites: float, and bit-equal simulation of the integer graph.

What happens at a site is not part of the graph but of a :class:`Sites` object, so that one annotated graph serves
float execution, calibration (a subclass that records what passes) and simulation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F

from tvm_ahcq.quantizers.activation.attention_constants import AttentionQuantizers, attention_constants
from tvm_ahcq.quantizers.activation.cag import CagParams
from tvm_ahcq.quantizers.activation.hluq import TableParams
from tvm_ahcq.quantizers.activation.row_relative import RowRelativeParams
from tvm_ahcq.quantizers.activation.uniform import UniformParams
from tvm_ahcq.quantizers.core.intervals import interval_encoder
from tvm_ahcq.quantizers.core.params import QuantizerParams
from tvm_ahcq.quantizers.core.reference import EXP_BITS, FRACTION_BITS, AttentionConstants, exp2_fixed, rounding_shift
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight

LOGITS_AT_ONCE = 1 << 21
"""Attention is computed for as many heads, or queries of one head, at a time as keep the logits below this many
elements: they stay in the cache."""


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "identity": lambda x: x,
    "gelu": F.gelu,
    "relu": F.relu,
}
"""Non-linearities that a site may absorb."""


class Sites:
    """Behaviour at quantization sites; this base class leaves everything in float."""

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """Value of the site `site`, the non-linearity `activation` of `x`."""
        return ACTIVATIONS[activation](x)

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Layer `name`: ``(..., K)``, ``(N, K)``, ``(N,)`` -> ``(..., N)``."""
        return F.linear(x, weight, bias)

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Same-padded convolution `name`: ``(B, H, W, C)``, ``(O, C, k, k)`` -> ``(B, H, W, O)``."""
        return same_convolution(x, weight)

    def attention(
        self,
        name: str,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        rel_h: torch.Tensor | None,
        rel_w: torch.Tensor | None,
    ) -> torch.Tensor:
        """Attention `name` of ``(B, N, d)`` operands that have passed their sites; probabilities are never formed."""

        def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, first: int) -> torch.Tensor:
            return fused_attention(q, k, v, scale, rel_h, rel_w, first)

        return over_blocks(block, q, k, v, grid_width(rel_w))

    def attention_by_probabilities(
        self,
        name: str,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        scale: float,
        rel_h: torch.Tensor | None,
        rel_w: torch.Tensor | None,
    ) -> torch.Tensor:
        """The same, with probabilities that pass :meth:`probabilities`; differentiable."""

        def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, first: int) -> torch.Tensor:
            return self.probabilities(name, attention_logits(q, k, scale, rel_h, rel_w, first).softmax(-1), v) @ v

        return over_blocks(block, q, k, v, grid_width(rel_w))

    def probabilities(self, name: str, probs: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Value of the site ``<name>.probs`` for some heads and queries."""
        return probs


_IN_USE: ContextVar[Sites] = ContextVar("sites", default=Sites())  # noqa: B039  (the base class has no state)


@contextmanager
def using_sites(sites: Sites) -> Iterator[None]:
    """While the context lasts, quantization sites of graphs that run in torch do what `sites` says."""
    token = _IN_USE.set(sites)
    try:
        yield
    finally:
        _IN_USE.reset(token)


def current_sites() -> Sites:
    """Return the current behaviour of quantization sites."""
    return _IN_USE.get()


def same_convolution(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Stride-1, same-padded convolution, channels last."""
    return F.conv2d(x.permute(0, 3, 1, 2), weight, padding=weight.shape[-1] // 2).permute(0, 2, 3, 1)


Block = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]
"""Attention of some heads ``(B, n, d)``, ``(B, Nk, d)``, ``(B, Nk, d)``; their queries are whole rows of the grid, from
the one that the integer says."""


def over_blocks(function: Block, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, width: int) -> torch.Tensor:
    """Apply `function` to blocks of heads, or of grid rows (of `width` queries) of a head, that fit the cache."""
    heads = max(1, LOGITS_AT_ONCE // (q.shape[1] * k.shape[1]))
    rows = max(1, LOGITS_AT_ONCE // (heads * k.shape[1] * width))
    blocks = []
    for head in range(0, len(q), heads):
        some = slice(head, head + heads)
        parts = [
            function(q[some, first * width : (first + rows) * width], k[some], v[some], first)
            for first in range(0, q.shape[1] // width, rows)
        ]
        blocks.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def level_of(x: torch.Tensor, thresholds: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Return the level of each value of a staircase.

    Parameters
    ----------
    x : torch.Tensor
        Any shape, float32.
    thresholds : torch.Tensor
        ``(n - 1,)`` float32, ascending; a value equal to a threshold is below it.
    levels : torch.Tensor
        ``(n,)`` float32.
    """
    # 32-bit indices: half the memory traffic
    codes = torch.bucketize(x.contiguous(), thresholds, out_int32=True)
    return levels.index_select(0, codes.flatten()).view(x.shape)


def grid_width(rel_w: torch.Tensor | None) -> int:
    """Queries of a row of the grid; 1 where there are no relative positions."""
    return 1 if rel_w is None else (len(rel_w) + 1) // 2


def relative_terms(
    q: torch.Tensor, rel_h: torch.Tensor, rel_w: torch.Tensor, first: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Products of queries with the relative positions: ``(B, r, w, h, 1)`` by row, ``(B, r, w, 1, w)`` by column.

    The queries are r whole rows of the ``h x w`` grid, beginning with row `first`.
    """
    height, width = (len(rel_h) + 1) // 2, grid_width(rel_w)
    grid = q.unflatten(1, (-1, width))
    rows, columns = first + torch.arange(grid.shape[1]), torch.arange(width)
    by_row = torch.einsum("bhwc,hkc->bhwk", grid, rel_h[rows[:, None] - torch.arange(height) + height - 1])
    by_column = torch.einsum("bhwc,wkc->bhwk", grid, rel_w[columns[:, None] - columns + width - 1])
    return by_row[..., :, None], by_column[..., None, :]


def fused_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    scale: float,
    rel_h: torch.Tensor | None,
    rel_w: torch.Tensor | None,
    first: int = 0,
) -> torch.Tensor:
    """Attention of ``(B, N, d)`` operands in torch's fused kernel, with the logits of :func:`attention_logits`."""
    bias = None
    if rel_h is not None and rel_w is not None:
        by_row, by_column = relative_terms(q, rel_h, rel_w, first)
        bias = (by_row + by_column).reshape(1, len(q), q.shape[1], k.shape[1])
    return F.scaled_dot_product_attention(q[None], k[None], v[None], attn_mask=bias, scale=scale)[0]


def attention_logits(
    q: torch.Tensor,
    k: torch.Tensor,
    scale: float,
    rel_h: torch.Tensor | None,
    rel_w: torch.Tensor | None,
    first: int = 0,
) -> torch.Tensor:
    """``scale q k^T`` plus decomposed relative positions (of the unscaled query), ``(B, Nq, Nk)``.

    With relative positions, the queries are whole rows of the grid, beginning with row `first`.
    """
    logits = (q * scale) @ k.transpose(1, 2)
    if rel_h is None or rel_w is None:
        return logits
    return add_relative(logits, *relative_terms(q, rel_h, rel_w, first))


def add_relative(logits: torch.Tensor, by_row: torch.Tensor, by_column: torch.Tensor) -> torch.Tensor:
    """Logits ``(B, Nq, Nk)`` plus the terms of :func:`relative_terms`."""
    split = logits.unflatten(1, by_row.shape[1:3]).unflatten(3, (by_row.shape[3], by_column.shape[4]))
    return (split + by_row + by_column).reshape(logits.shape)


class SimulatedSites(Sites):
    """Every site quantized; codes, and the float32 results of integer operators, equal the integer graph's bit for bit.

    Parameters
    ----------
    quantizers : mapping of str to QuantizerParams
        One for each site.
    weights : mapping of str to QuantizedWeight
        Quantized weights by name of the layer; other layers stay in float, but are summed in float64.
    """

    def __init__(self, quantizers: Mapping[str, QuantizerParams], weights: Mapping[str, QuantizedWeight] | None = None):
        self.quantizers, self.weights = quantizers, weights or {}
        self._intervals: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self._levels: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    def activation(self, site: str, x: torch.Tensor, activation: str = "identity") -> torch.Tensor:
        """The non-linearity `activation` of `x`, rounded to the levels of the site's quantizer."""
        params = self.quantizers[site]
        if isinstance(params, TableParams):
            if site not in self._intervals:
                book = params.codebook()
                thresholds, operands = interval_encoder(book, activation)
                values = operands.astype(np.float32) * np.float32(params.delta) + np.float32(params.offset)
                self._intervals[site] = torch.from_numpy(thresholds), torch.from_numpy(values)
            bounds, levels = self._intervals[site]
            return level_of(x, bounds, levels)
        return _SIMULATE[type(params)](params, ACTIVATIONS[activation](x))

    def rounded_probabilities(self, site: str, probs: torch.Tensor) -> torch.Tensor:
        """Float probabilities rounded to the levels of the site's quantizer, for attentions that run in float."""
        if site not in self._levels:
            (book,) = self.quantizers[site].codebooks()
            values = book.decode(np.arange(len(book.table)))
            self._levels[site] = torch.from_numpy(book.thresholds.copy()), torch.from_numpy(values)
        thresholds, levels = self._levels[site]
        if not isinstance(self.quantizers[site], RowRelativeParams):
            return level_of(probs, thresholds, levels)
        rounded = level_of(probs / probs.amax(-1, keepdim=True), thresholds, levels)
        return rounded / rounded.sum(-1, keepdim=True)

    def linear(self, name: str, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        """Integer products a group, added up as :func:`tvm_ahcq.quantizers.core.reference.grouped_linear` does."""
        if name not in self.weights:
            return F.linear(x.double(), weight.double(), bias.double()).float()
        quantized, params = self.weights[name], self.quantizers[f"{name}.input"]
        operands = torch.from_numpy(quantized.operands().reshape(len(quantized.codes), -1)).double()
        scales, member, offset = _affine_groups(params, x.shape[-1])
        steps = torch.round((x.double() - offset) / torch.from_numpy(scales[member]).double())
        y = torch.from_numpy(quantized.folded_bias(bias.numpy(), offset)).expand(*x.shape[:-1], -1)
        for group, scale in enumerate(scales):
            chosen = torch.from_numpy(np.flatnonzero(member == group))
            accumulator = steps[..., chosen] @ operands[:, chosen].T
            y = fma32(accumulator.float(), torch.from_numpy(scale * quantized.scale), y)
        return y

    def conv2d(self, name: str, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Integer convolution, scaled once."""
        quantized, params = self.weights[name], self.quantizers[f"{name}.input"]
        scale = np.float32(cast(UniformParams, params).scale)
        steps = torch.round(x.double() / float(scale))
        accumulator = same_convolution(steps, torch.from_numpy(quantized.operands()).double())
        return accumulator.float() * torch.from_numpy(scale * quantized.scale)

    def attention(self, name, q, k, v, scale, rel_h, rel_w) -> torch.Tensor:
        """Log-domain integer attention; the operands carry values of their quantizers."""
        operands = [cast(UniformParams, self.quantizers[f"{name}.{role}"]) for role in "qkv"]
        quantizers = AttentionQuantizers(operands[0], operands[1], operands[2], self.quantizers[f"{name}.probs"])
        arrays = [None if table is None else table.detach().numpy() for table in (rel_h, rel_w)]
        constants, *tables = attention_constants(
            quantizers,
            scale=scale,
            head_dim=q.shape[-1],
            rel_h=arrays[0],
            rel_w=arrays[1],
        )
        q, k, v = (torch.round(x / np.float32(p.scale)).double() for x, p in zip((q, k, v), operands, strict=True))
        rows, columns = (None if table is None else torch.from_numpy(table).double() for table in tables)

        def block(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, first: int) -> torch.Tensor:
            return _integer_attention(q, k, v, constants, rows, columns, first)

        return over_blocks(block, q, k, v, grid_width(rel_w))


def _integer_attention(q, k, v, c: AttentionConstants, rel_h, rel_w, first: int) -> torch.Tensor:
    """:func:`tvm_ahcq.quantizers.core.reference.log_attention` on zero-point-free float64 operands of a block."""
    logits = rounding_shift((q @ k.transpose(1, 2)).to(torch.int32), c.qk_shift) * c.qk_multiplier
    if rel_h is not None:
        terms = zip(relative_terms(q, rel_h, rel_w, first), (c.rel_h_multiplier, c.rel_w_multiplier), strict=True)
        by_row, by_column = (rounding_shift(term.to(torch.int32), c.rel_shift) * factor for term, factor in terms)
        logits = add_relative(logits, by_row, by_column)
    logits = rounding_shift(logits, c.shift)
    below = logits.amax(-1, keepdim=True) - logits
    minus_log2 = below
    if not c.row_relative:
        minus_log2 = below + _log2_fixed(exp2_fixed(below).sum(-1, keepdim=True, dtype=torch.int64))
    negated = torch.from_numpy(-c.log_thresholds)
    table = torch.from_numpy(c.table.astype(np.float64))
    operands = table[torch.bucketize(-minus_log2, negated, right=True)]
    scale = torch.tensor(c.out_scale)
    if c.row_relative:
        scale = scale / operands.sum(-1, keepdim=True).float()
    return (operands @ v).float() * scale


def _log2_fixed(total: torch.Tensor) -> torch.Tensor:
    """:func:`tvm_ahcq.quantizers.core.reference.log2_fixed` on int64 tensors."""
    whole = torch.frexp(total.double())[1].long() - 1
    mantissa = total << (30 - whole)
    fraction = torch.zeros_like(total)
    for _ in range(FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> 30
        carry = mantissa >> 31
        mantissa = mantissa >> carry
        fraction = (fraction << 1) | carry
    return (((whole - EXP_BITS) << FRACTION_BITS) | fraction).to(torch.int32)


def _uniform(params: UniformParams, x: torch.Tensor) -> torch.Tensor:
    scale, zero = float(np.float32(params.scale)), params.zero_point
    return (torch.round(x / scale) + zero).clamp(0, 2**params.bits - 1).sub(zero) * scale


def _cag(params: CagParams, x: torch.Tensor) -> torch.Tensor:
    scale, zero = (torch.from_numpy(a.astype(np.float32)) for a in params.per_channel())
    return ((torch.round(x / scale) + zero).clamp(0, 2**params.bits - 1) - zero) * scale


_SIMULATE: dict[type[QuantizerParams], Callable] = {UniformParams: _uniform, CagParams: _cag}


def _affine_groups(params: QuantizerParams, channels: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Scale of each group, group of each channel, and the offset of values at a layer's input."""
    if isinstance(params, CagParams):
        return np.asarray(params.scales, np.float32), np.asarray(params.group_of), 0.0
    if isinstance(params, TableParams):
        return np.array([params.delta], np.float32), np.zeros(channels, int), float(np.float32(params.offset))
    return np.array([cast(UniformParams, params).scale], np.float32), np.zeros(channels, int), 0.0


def fma32(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """:func:`tvm_ahcq.quantizers.core.reference.fma32` on float32 tensors."""
    product, c = a.double() * b.double(), c.double()
    total = product + c
    virtual = total - product
    error = (product - (total - virtual)) + (c - virtual)
    even = (total.view(torch.int64) & 1) == 0
    towards = torch.where(error > 0, torch.inf, -torch.inf).double()
    return torch.where((error != 0) & even, torch.nextafter(total, towards), total).float()


def exact_layer_norm(attrs: SimpleNamespace, args: Sequence[torch.Tensor]) -> torch.Tensor:
    """LayerNorm in float64, rounded once, as the compiled kernel does it: the order of additions does not matter."""
    x, gamma, beta = (arg.double() for arg in args)
    return F.layer_norm(x, x.shape[-len(attrs.axes) :], gamma, beta, attrs.epsilon).float()
