"""A profile as a picture: one bar for each kernel, as long as its time. A self-contained SVG."""

from __future__ import annotations

from collections.abc import Mapping

from tvm_ahcq.runtime.profiler import KernelTime, Profile

from .svg import Scale, line, linear_ticks, number, rect, svg, text

_LABELS, _WIDTH, _FIGURES, _ROW, _TOP = 330.0, 900.0, 170.0, 20.0, 54.0

_MOST = 25
"""Kernels that are shown; the rest is one bar."""

_STYLE = """<style>
svg { background: #fff; font: 12px system-ui, sans-serif; }
text { fill: #222; } .title { font-size: 14px; font-weight: 600; } .grid { stroke: #ddd; }
.int8 { fill: #2a6fb0; } .float32 { fill: #c9752d; } .other { fill: #8a8f98; }
</style>"""


def profile_plot(profile: Profile, peaks: Mapping[str, float]) -> str:
    """Bars of a profile.

    Parameters
    ----------
    profile : Profile
        What was measured.
    peaks : mapping of str to float
        Multiply-adds a second that the machine can do, by unit; units may be absent.
    """
    shown, rest = profile.kernels[:_MOST], profile.kernels[_MOST:]
    bars = [(f"{k.kernel}  {k.shape}", k.seconds, k.unit or "other", _figures(k, peaks)) for k in shown]
    if rest:
        bars.append((f"{len(rest)} other kernels", sum(k.seconds for k in rest), "other", ""))
    longest = 1e3 * max((seconds for _, seconds, _, _ in bars), default=1e-3)
    scale = Scale(0, longest, _LABELS, _WIDTH - _FIGURES)
    bottom = _TOP + _ROW * len(bars)
    body = [_STYLE, text(10, 20, f"{profile.function}: {number(1e3 * profile.seconds)} ms", "title", "start")]
    for tick in linear_ticks(0, longest):
        body.append(line(scale(tick), _TOP - 6, scale(tick), bottom, "grid"))
        body.append(text(scale(tick), _TOP - 10, f"{number(tick)} ms"))
    for index, (label, seconds, unit, figures) in enumerate(bars):
        y, end = _TOP + _ROW * index, scale(1e3 * seconds)
        body.append(text(_LABELS - 8, y + 13, label[:52], anchor="end"))
        body.append(rect(_LABELS, y + 2, end - _LABELS, _ROW - 4, unit, label))
        body.append(text(end + 6, y + 13, figures or f"{number(1e3 * seconds)} ms", anchor="start"))
    x = 10.0
    for unit, meaning in (("int8", "int8 multiply-adds"), ("float32", "float32 multiply-adds"), ("other", "others")):
        body += [rect(x, bottom + 10, 12, 12, unit), text(x + 18, bottom + 20, meaning, anchor="start")]
        x += 180
    drawn = svg(_WIDTH, bottom + 32, body, f"time of each kernel of {profile.function}")
    return drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def _figures(kernel: KernelTime, peaks: Mapping[str, float]) -> str:
    if not kernel.macs:
        return ""
    rate = kernel.macs / kernel.seconds
    peak = f", {rate / peaks[kernel.unit]:.0%} of peak" if kernel.unit in peaks else ""
    return f"{number(rate / 1e9)} GMAC/s{peak}"
