"""Patterns of windowed attention: images cut into square windows, and windows merged into images."""

from __future__ import annotations

from tvm import relax

from tvm_ahcq.kernels.common.windows import Windows
from tvm_ahcq.relay_passes.shapes import dims, is_static, sizes

from .use_chains import UseChains

_WINDOW_AXES = [0, 1, 3, 2, 4, 5]
"""Permutation between ``(B, down, size, across, size, C)`` and ``(B, down, across, size, size, C)``."""


def match_merge(chains: UseChains, expr: relax.Expr) -> tuple[Windows | None, relax.Expr]:
    """Match an image that is merged from windows and cropped.

    Returns
    -------
    (Windows or None, relax.Expr)
        The windows and the tensor that holds them; None and `expr` itself if the pattern does not match.
    """
    whole = chains.skip(expr, "relax.strided_slice")
    permuted = chains.producer(chains.input_of(whole, "relax.reshape"), "relax.permute_dims")
    if permuted is None or not is_static(expr) or _axes(permuted) != _WINDOW_AXES:
        return None, expr
    _, down, across, size, size_across, _ = sizes(permuted.args[0])
    _, height, width, _ = sizes(expr)
    windows = Windows(height, width, size)
    _, padded_height, padded_width, _ = sizes(whole)
    fits = size == size_across and (down * size, across * size) == (padded_height, padded_width)
    fits = fits and (down * across, across) == (windows.per_image, windows.across)
    return (windows, permuted.args[0]) if fits and _keeps_the_start(chains, expr) else (None, expr)


def match_split(chains: UseChains, expr: relax.Expr) -> tuple[Windows | None, relax.Expr]:
    """Match windows that are cut from a padded image.

    Returns
    -------
    (Windows or None, relax.Expr)
        The windows and the image; None and `expr` itself if the pattern does not match.
    """
    permuted = chains.producer(chains.input_of(expr, "relax.reshape"), "relax.permute_dims")
    if permuted is None or _axes(permuted) != _WINDOW_AXES or not is_static(permuted.args[0]):
        return None, expr
    padded = chains.input_of(permuted.args[0], "relax.reshape")
    if padded is None:
        return None, expr
    pad = chains.producer(padded, "relax.nn.pad")
    _, down, size, across, size_across, _ = sizes(permuted.args[0])
    image = padded if pad is None else pad.args[0]
    if size != size_across or len(dims(image)) != 4 or (pad is not None and not _pads_the_end(pad)):
        return None, expr
    _, height, width, _ = sizes(image)
    windows = Windows(height, width, size)
    return (windows, image) if (down * across, across) == (windows.per_image, windows.across) else (None, expr)


def _axes(permute: relax.Call) -> list[int]:
    return [int(axis) for axis in permute.attrs.axes]


def _keeps_the_start(chains: UseChains, expr: relax.Expr) -> bool:
    """True if the slices between `expr` and its source, if any, begin at 0 and leave nothing out."""
    while (call := chains.producer(expr, "relax.strided_slice")) is not None:
        starts, strides = (_integers(chains.defs.of(call.args[place])) for place in (2, 4))
        if any(starts) or any(stride != 1 for stride in strides):
            return False
        expr = call.args[0]
    return True


def _integers(expr: relax.Expr) -> list[int]:
    return [int(field) for field in (expr.fields if isinstance(expr, relax.Tuple) else expr.values)]


def _pads_the_end(pad: relax.Call) -> bool:
    """True if zeros are added at the end of axes only."""
    widths = [int(value) for value in pad.attrs.pad_width]
    constant = str(pad.attrs.pad_mode) == "constant" and float(pad.attrs.pad_value) == 0
    return constant and not any(widths[::2])
