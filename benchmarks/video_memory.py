"""Memory of tracking: the resident memory of the process over thousands of frames, of a video and of a stream.

Writes ``benchmarks/results/video_memory.md`` and ``.svg``. With sam2_n it takes about five minutes on 2 cores.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import tvm_ahcq as ahcq
from tvm_ahcq.clips import generate
from tvm_ahcq.evaluate.datasets.object_prompts import tight_box
from tvm_ahcq.evaluate.report.svg import Scale, line, linear_ticks, number, svg, text
from tvm_ahcq.runtime.bundle import read_bundle

RESULTS = Path(__file__).parent / "results"
CLIP, LENGTH, EVERY = 3_000_100, 48, 20
"""Seed and frames of the clip that is shown to and fro; frames between two readings."""

_STYLE = """<style>
svg { background: #fff; font: 12px system-ui, sans-serif; } text { fill: #222; } .grid { stroke: #e4e4e4; }
.video { stroke: #2a6fb0; fill: none; stroke-width: 1.6; } .stream { stroke: #c9752d; fill: none; stroke-width: 1.6; }
text.video { fill: #2a6fb0; stroke: none; } text.stream { fill: #c9752d; stroke: none; }
</style>"""


class ToAndFro:
    """A short clip as a long video."""

    def __init__(self, frames: np.ndarray, count: int) -> None:
        self._frames, self._count = frames, count
        self.size = frames.shape[1:3]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> np.ndarray:
        if not 0 <= index < self._count:
            raise IndexError(index)
        last = len(self._frames) - 1
        return self._frames[last - abs(last - index % (2 * last))]


def resident() -> float:
    """Resident memory of this process in MB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def video(predictor: Any, frames: ToAndFro, boxes: list) -> Iterator[None]:
    """Track through the whole video, in the way of upstream."""
    state = predictor.init_state(frames)
    for name, box in enumerate(boxes):
        predictor.add_new_points_or_box(state, 0, name, box=box)
    for _ in predictor.propagate_in_video(state):
        yield


def stream(predictor: Any, frames: ToAndFro, boxes: list) -> Iterator[None]:
    """Track frame by frame, as from a camera."""
    track = predictor.stream()
    for name, box in enumerate(boxes):
        track.add(frames[0], box=box, obj_id=name)
    for index in range(len(frames)):
        track.step(frames[index])
        yield


def readings(steps: Iterator[None]) -> tuple[list[float], float]:
    """Resident memory every so many frames, and the seconds that all took."""
    found, start = [], time.perf_counter()
    for index, _ in enumerate(steps):
        if index % EVERY == 0:
            found.append(resident())
    return found, time.perf_counter() - start


def plot(curves: dict[str, list[float]]) -> str:
    """The curves over the frames."""
    count, most = max(map(len, curves.values())) * EVERY, 1.15 * max(map(max, curves.values()))
    x, y = Scale(0, count, 60, 600), Scale(0, most, 300, 30)
    body = [_STYLE]
    for value in linear_ticks(0, count):
        body += [line(x(value), 30, x(value), 300, "grid"), text(x(value), 318, number(value))]
    for value in linear_ticks(0, most):
        body += [line(60, y(value), 600, y(value), "grid"), text(52, y(value) + 4, number(value), anchor="end")]
    for place, (name, values) in enumerate(curves.items()):
        points = "L".join(f"{x(index * EVERY):.1f} {y(value):.1f}" for index, value in enumerate(values))
        body += [f'<path class="{name}" d="M{points}"/>', text(610, 60 + 20 * place, name, name, "start")]
    body += [text(330, 340, "frame"), text(60, 20, "resident memory, MB", anchor="start")]
    picture = svg(700, 350, body, "resident memory over frames")
    return picture.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)


def main() -> None:
    """Track, read the memory, write page and plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="a bundle for video")
    parser.add_argument("--frames", type=int, default=2000)
    args = parser.parse_args()
    clip, model = generate(CLIP, LENGTH), read_bundle(args.bundle).manifest.model
    boxes = [tight_box(clip.masks(index)[0]) for index in clip.objects()]
    curves, lines = {}, []
    for name, steps in (("video", video), ("stream", stream)):
        predictor = ahcq.load_video(args.bundle)
        curves[name], seconds = readings(steps(predictor, ToAndFro(clip.frames, args.frames), boxes))
        early = curves[name][min(100 // EVERY, len(curves[name]) - 1)]
        lines.append(
            f"| {name} | {early:.0f} MB | {curves[name][-1]:.0f} MB | {max(curves[name]):.0f} MB "
            f"| {args.frames / seconds:.1f} |"
        )
    page = [
        "# Memory of tracking\n",
        f"{model.name}, {len(boxes)} objects from boxes, {args.frames} frames; resident memory of the process. `video` "
        "is `propagate_in_video`, which keeps the low-resolution masks of all frames as upstream does; `stream` keeps "
        "what the next frame reads. Written by `python benchmarks/video_memory.py F.ahcq`.\n",
        "| way | after 100 frames | at the end | most | frames a second |",
        "|---|---|---|---|---|",
        *lines,
        "\n![resident memory over frames](video_memory.svg)",
    ]
    (RESULTS / "video_memory.md").write_text("\n".join(page) + "\n", encoding="utf-8")
    (RESULTS / "video_memory.svg").write_text(plot(curves), encoding="utf-8")
    print("\n".join(page))


if __name__ == "__main__":
    main()
