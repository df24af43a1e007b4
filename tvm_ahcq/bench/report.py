"""A finished comparison as Markdown."""

from __future__ import annotations

from statistics import median

from .machine import features, processor, versions
from .runner import Comparison, PeerResult
from .task import VIDEO_STAGES, stages_of

STAGE_TITLES = {
    "encode": "image encoder",
    "decode": "one click",
    "whole": "picture and click",
    "memory": "memory attention",
    "frame": "a frame, one object",
    "frame8": "a frame, eight objects",
}


def header(comparison: Comparison) -> tuple[str, ...]:
    """Names of the columns of :func:`rows`."""
    stages = [
        title
        for stage in stages_of(comparison.task.model)
        for title in (f"{STAGE_TITLES[stage]}: least, median", "x ours")
    ]
    return ("runtime", *stages, "of int8 peak", "most memory", "opened in", "weights", "cosine")


def rows(comparison: Comparison) -> list[tuple[str, ...]]:
    """A line for each runtime that ran."""
    ours, peak = comparison.results[0], median(comparison.peaks) if comparison.peaks else None
    return [_row(each, ours, peak, comparison.encoder_macs) for each in comparison.results]


def _row(each: PeerResult, ours: PeerResult, peak: float | None, macs: int) -> tuple[str, ...]:
    cells = [each.name]
    for stage in each.seconds:
        cells += [_times(each.least(stage), each.median(stage)), f"{each.ratio(stage, ours):.2f}"]
    cells.append("" if peak is None else f"{macs / each.median('encode') / peak:.0%}")
    cells += [f"{each.memory / 1e9:.2f} GB", f"{each.load:.1f} s", f"{each.files / 1e6:.1f} MB"]
    return (*cells, "" if each.cosine is None else f"{each.cosine:.4f}")


def _times(least: float, middle: float) -> str:
    if middle >= 1:
        return f"{least:.2f}, {middle:.2f} s"
    return f"{1e3 * least:.1f}, {1e3 * middle:.1f} ms"


def summary(comparison: Comparison) -> list[str]:
    """Lines for people: the machine, the run, how to read the table, who is missing."""
    task, fastest = comparison.task, _fastest(comparison)
    rounds = len(comparison.results[0].seconds["encode"])
    lines = [
        f"{task.model.name} at {task.model.input_text.replace('x', ' x ')}, {task.threads} threads each; "
        f"{processor()} with {', '.join(features())}; "
        + ", ".join(f"{name} {version}" for name, version in versions().items())
        + ".",
        f"{rounds} rounds, in each of which every runtime took its turn at every stage, in a process of its own; "
        '"x ours" is the median over the rounds of its time against ours in the same round.',
    ]
    if comparison.peaks:
        low, high = min(comparison.peaks) / 1e9, max(comparison.peaks) / 1e9
        lines.append(
            f"The encoder has {comparison.encoder_macs / 1e9:.0f} GMAC in float; a loop of nothing but int8 "
            f"multiply-adds, run in every round, did {low:.0f} to {high:.0f} GMAC/s on {task.threads} threads."
        )
    if fastest is not None:
        ratio = fastest.ratio("encode", comparison.results[0])
        lines.append(f"Fastest other encoder: {fastest.name}, {ratio:.2f} times our time.")
    if comparison.task.model.tracks:
        lines += _tracking(comparison)
    lines += [f"Left out: {name} ({reason})." for name, reason in comparison.skipped.items()]
    return lines


def _tracking(comparison: Comparison) -> list[str]:
    """Lines on a frame of a video: who is fastest, and what share the memory and further objects have."""
    ours, fastest = comparison.results[0], _fastest(comparison, "frame")
    memory, frame, eight = (ours.median(stage) for stage in VIDEO_STAGES)
    lines = [
        f"A frame with all memories and object pointers: memory attention is {memory / frame:.0%} of it, eight objects "
        f"take {eight / frame:.1f} times as long as one. torch has upstream's memory attention; other runtimes have "
        "ours, since upstream's cannot be exported."
    ]
    if fastest is not None:
        lines.append(f"Fastest other frame: {fastest.name}, {fastest.ratio('frame', ours):.2f} times our time.")
    return lines


def _fastest(comparison: Comparison, stage: str = "encode") -> PeerResult | None:
    return min(comparison.results[1:], key=lambda each: each.median(stage), default=None)


def markdown(comparison: Comparison) -> str:
    """Summary and table."""
    names = header(comparison)
    table = [names, ("---",) * len(names), *rows(comparison)]
    notes = (
        "Memory is the most that a runtime's process held, opening included; weights are its files; cosine is that of "
        "its embedding and torch's in float32."
    )
    lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
    text = [f"## {comparison.task.model.name}", *summary(comparison), lines, notes]
    return "\n\n".join(text) + "\n"
