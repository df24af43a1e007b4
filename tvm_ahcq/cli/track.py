"""``tvm-ahcq track``: a bundle, a video and prompts in; a video with the objects drawn in, and their masks, out."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .arguments import UsageError, add_device_options, count, device_options, input_file, input_path
from .console import progress_bar, result
from .track_arguments import FORMATS, VIDEO_SUFFIXES, AddPrompt, NextObject, Prompt, mask_output, track_output

if TYPE_CHECKING:
    import numpy as np

    from tvm_ahcq.frames import Frames
    from tvm_ahcq.runtime.video_outputs import Output
    from tvm_ahcq.runtime.video_overlay import DrawnPrompts

EXAMPLES = """\
examples:
  a click on the first frame:      tvm-ahcq track m.ahcq cat.mp4 --point 320,240 -o out.mp4
  a box on frame 50:               tvm-ahcq track m.ahcq cat.mp4 --box 40,30,200,180@50 -o out.mp4
  a click off the object, later:   tvm-ahcq track m.ahcq cat.mp4 --point 320,240 --point 90,80,0@75 -o out.mp4
  two objects:                     tvm-ahcq track m.ahcq cats.mp4 --point 320,240 --object --point 90,80 -o out.mp4
  from a mask, masks out:          tvm-ahcq track m.ahcq frames/ --mask first.png --masks-out masks/
  masks as run lengths:            tvm-ahcq track m.ahcq frames/ --box 40,30,200,180 --masks-out m.json --format coco

F.ahcq is a SAM 2 compiled with --video. A folder holds a JPEG or PNG for each frame, 00000.jpg, 00001.jpg, ...; video
files need pip install 'tvm-ahcq[video]'. Frames count from 0; coordinates are pixels, (0,0) at the top left.

Prompts before the first --object show object 1; each --object starts the next one. Objects are tracked from the first
frame with a prompt to the end, and back to the beginning. Prompts on several frames of one object all count: look at
the result, add a click where it goes wrong, and track again.

With Ctrl-C, or if a frame cannot be read, what was tracked until then is written.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "track",
        help="track objects through a video by clicks, boxes or masks",
        description="Track objects through a video by clicks, boxes or masks on any frame, and draw them in.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile --video`"
    )
    parser.add_argument("video", metavar="VIDEO", type=input_path, help="video file, or folder of JPEG or PNG files")
    prompts = parser.add_argument_group("prompts, on frame 0 unless @FRAME says otherwise")
    prompts.add_argument(
        "--point",
        metavar="X,Y[,0|1][@FRAME]",
        action=AddPrompt,
        help="a click on the object, or off it with ,0; may be repeated",
    )
    prompts.add_argument("--box", metavar="X0,Y0,X1,Y1[@FRAME]", action=AddPrompt, help="a box around the object")
    prompts.add_argument(
        "--mask",
        metavar="M.png[@FRAME]",
        action=AddPrompt,
        help="a picture of the frame's size: the object is what is not 0",
    )
    prompts.add_argument("--object", action=NextObject, help="the prompts that follow are for one more object")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT",
        type=track_output,
        help=f"where to draw the objects in: a video ({', '.join(VIDEO_SUFFIXES)}), or a folder for JPEG files",
    )
    parser.add_argument("--masks-out", metavar="OUT", type=Path, help="where to write the masks by themselves")
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default=FORMATS[0],
        help="of --masks-out: png, a folder of PNG files whose values are numbers of objects (default); coco, a JSON "
        "file of run lengths",
    )
    parser.add_argument(
        "--direction",
        choices=("both", "forward", "backward"),
        default="both",
        help="from the first frame with a prompt: to the end, to the beginning, or to both (default)",
    )
    parser.add_argument("--frames", metavar="N", type=count, help="at most N frames in each direction")
    parser.add_argument("--no-overlap", action="store_true", help="give each pixel to one object at most")
    add_device_options(parser)
    parser.set_defaults(run=run, prompts=[])


@dataclass(frozen=True)
class _Tracked:
    """Masks of all objects on a frame: ``(objects, H, W)`` bool, packed in bits while they wait."""

    frame: int
    packed: np.ndarray
    shape: tuple[int, ...]

    def masks(self, names: Sequence[int]) -> dict[int, np.ndarray]:
        import numpy as np

        flat = np.unpackbits(self.packed, count=int(np.prod(self.shape)))
        return dict(zip(names, flat.reshape(self.shape).astype(bool), strict=True))


def run(args: argparse.Namespace) -> None:
    """Check everything that can be checked without the model, load it, and track."""
    _check(args)
    # imported from here on, so that help and errors come at once
    from tvm_ahcq.frames import open_frames
    from tvm_ahcq.models.registry import find_family
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.load import require_video
    from tvm_ahcq.runtime.session import Session

    from .track_prompts import check_prompts

    frames = open_frames(args.video)
    drawn = check_prompts(args.prompts, frames)
    bundle = read_bundle(args.bundle)
    require_video(bundle)
    session = Session(bundle, device=device_options(args))
    make = find_family(session.model.family).video_predictor
    assert make is not None
    track(args, make(session, non_overlap_masks=args.no_overlap), frames, drawn)


def track(args: argparse.Namespace, predictor: Any, frames: Frames, drawn: dict[int, DrawnPrompts]) -> None:
    """Track, write each frame, and report; after an interruption or an error, what was done is written and reported.

    Parameters
    ----------
    args : argparse.Namespace
        Of the command line.
    predictor : SAM2VideoPredictor
        Of the bundle.
    frames : Frames
        Of the video.
    drawn : dict of int to DrawnPrompts
        What to draw beside the masks, by frame.
    """
    from tvm_ahcq.runtime.video_outputs import finished

    from .track_prompts import add_prompts

    height, width = frames.size
    result("video", f"{len(frames)} frames of {width} x {height}")
    state = predictor.init_state(frames)
    for name, frame, area in add_prompts(predictor, state, args.prompts):
        result(f"object {name}", f"frame {frame}: {area} pixels, {area / (height * width):.1%}")
    began, done, outputs = time.perf_counter(), 0, _outputs(args, frames, drawn)
    try:
        with progress_bar("tracking") as update, finished(outputs):
            for step, total, tracked, names in _in_order(args, predictor, state):
                if tracked is not None:
                    masks = tracked.masks(names)
                    for output in outputs:
                        output.write(tracked.frame, frames[tracked.frame], masks)
                    done += 1
                rate = step / (time.perf_counter() - began)
                update(f"{rate:.1f} frames/s", step, total)
    finally:
        seconds = time.perf_counter() - began
        if done:
            result("tracked", f"{done} frames in {seconds:.1f} s, {done / seconds:.2f} frames/s")
            result("written", ", ".join(str(path) for path in (args.output, args.masks_out) if path is not None))


def _in_order(
    args: argparse.Namespace, predictor: Any, state: Any
) -> Iterator[tuple[int, int, _Tracked | None, list[int]]]:
    """Yield step, steps in all, masks and names of objects; frames come in ascending order.

    Frames before the first prompt are tracked first, backwards, and wait: their steps have no masks.
    """
    start = min(prompt.frame for prompt in args.prompts)
    last, most = len(state.frames) - 1, len(state.frames) if args.frames is None else args.frames
    first = start if args.direction == "forward" else max(0, start - most)
    end = start if args.direction == "backward" else min(last, start + most)
    before, total, step = [], 2 * (start - first) + end - start + 1, 0
    if first < start:
        for frame, names, logits in predictor.propagate_in_video(state, start, start - first, reverse=True):
            if frame < start:
                before.append(_pack(frame, logits))
                yield (step := step + 1), total, None, names
        for tracked in reversed(before):
            yield (step := step + 1), total, tracked, names
    for frame, names, logits in predictor.propagate_in_video(state, start, end - start):
        yield (step := step + 1), total, _pack(frame, logits), names


def _pack(frame: int, logits: np.ndarray) -> _Tracked:
    import numpy as np

    masks = logits[:, 0] > 0
    return _Tracked(frame, np.packbits(masks), masks.shape)


def _outputs(args: argparse.Namespace, frames: Frames, drawn: dict[int, DrawnPrompts]) -> list[Output]:
    from tvm_ahcq.runtime.video_outputs import DrawnVideo, LabelFolder, PictureFolder, RunLengths, drawing
    from tvm_ahcq.video_file import DEFAULT_RATE

    outputs: list[Output] = []
    if args.masks_out is not None:
        outputs.append(LabelFolder(args.masks_out) if args.format == FORMATS[0] else RunLengths(args.masks_out))
    if args.output is not None and args.output.suffix.lower() in VIDEO_SUFFIXES:
        rate = getattr(frames, "rate", DEFAULT_RATE)
        outputs.append(DrawnVideo(args.output, frames.size, rate, drawing(drawn)))
    elif args.output is not None:
        outputs.append(PictureFolder(args.output, drawing(drawn)))
    return outputs


def _check(args: argparse.Namespace) -> None:
    """Refuse what needs neither video nor model to be refused."""
    prompts: Sequence[Prompt] = args.prompts
    if not prompts:
        raise UsageError(
            "track: nothing was asked for; show an object with --point X,Y, --box X0,Y0,X1,Y1 or --mask M.png"
        )
    if args.output is None and args.masks_out is None:
        raise UsageError("track: nothing would be written; give -o OUT.mp4, --masks-out OUT, or both")
    if args.masks_out is not None:
        mask_output(args.masks_out, args.format)
    used = {path.resolve(): path for path in (args.bundle, args.video)}
    for prompt in prompts:
        if prompt.kind == "mask":
            used[prompt.value.resolve()] = prompt.value
    for path in (args.output, args.masks_out):
        if path is None:
            continue
        if path.resolve() in used:
            raise UsageError(f"track: {path} would overwrite {used[path.resolve()]}; choose another name")
        used[path.resolve()] = path
    if args.output is not None and args.output.suffix.lower() in VIDEO_SUFFIXES:
        from tvm_ahcq.video_file import require_av

        require_av(f"{args.output}: writing a video file")
