"""``tvm-ahcq segment``: a bundle, a picture and prompts in; a picture with the mask drawn in out."""

from __future__ import annotations

import argparse
import time
from typing import TYPE_CHECKING

from .arguments import UsageError, add_device_options, box, device_options, input_file, output_picture, point
from .console import duration, result

if TYPE_CHECKING:
    import numpy as np

EXAMPLES = """\
examples:
  one click:                       tvm-ahcq segment m.ahcq photo.jpg --point 320,240 -o out.png
  with a click off the object:     tvm-ahcq segment m.ahcq photo.jpg --point 320,240 --point 400,100,0 -o out.png
  CPU and simulated accelerator:   tvm-ahcq segment m.ahcq photo.jpg --point 320,240 -o out.png --device fsim
  an accelerator on another desk:  tvm-ahcq segment m.ahcq photo.jpg --point 320,240 -o out.png \\
                                       --device rpc:192.168.1.2:9090/board
  a box, and the mask by itself:   tvm-ahcq segment m.ahcq photo.jpg --box 40,30,200,180 -o out.png --mask-out mask.png

Coordinates are pixels of the picture, (0,0) at the top left. One click is often ambiguous (the button or the shirt?):
--multimask asks for three candidates and draws the one that the model scores best.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "segment",
        help="segment a picture by clicks or a box",
        description="Segment a picture by clicks or a box, and draw the mask over it.",
        epilog=EXAMPLES,
    )
    parser.add_argument("bundle", metavar="F.ahcq", type=input_file, help="bundle written by `tvm-ahcq compile`")
    parser.add_argument("image", metavar="IMAGE", type=input_file, help="picture, in any format that Pillow reads")
    parser.add_argument(
        "--point",
        metavar="X,Y[,0|1]",
        type=point,
        action="append",
        default=[],
        help="a click on the object, or off it with a final ,0; may be repeated",
    )
    parser.add_argument("--box", metavar="X0,Y0,X1,Y1", type=box, help="a box around the object")
    parser.add_argument("--multimask", action="store_true", help="ask for three candidates, draw the best one")
    parser.add_argument(
        "-o",
        "--output",
        metavar="OUT.png",
        type=output_picture,
        required=True,
        help="where to write the picture with the mask drawn in",
    )
    parser.add_argument(
        "--mask-out",
        metavar="MASK.png",
        type=output_picture,
        help="where to write the mask by itself, 255 on the object and 0 off it",
    )
    add_device_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Segment, draw, print scores and times."""
    if not args.point and args.box is None:
        raise UsageError(
            "segment: nothing was asked for; give a click with --point X,Y or a box with --box X0,Y0,X1,Y1"
        )
    _refuse_overwriting(args)
    # imported here, so that help and errors come at once
    import numpy as np
    from PIL import Image

    from tvm_ahcq.image_files import load_image
    from tvm_ahcq.models.registry import find_family
    from tvm_ahcq.runtime.bundle import read_bundle
    from tvm_ahcq.runtime.overlay import save_overlay
    from tvm_ahcq.runtime.session import Session

    image = load_image(args.image)
    points = np.array([p[:2] for p in args.point]).reshape(-1, 2)
    labels = np.array([p[2] for p in args.point])
    corners = None if args.box is None else np.array(args.box)
    _refuse_outside(points, corners, image.shape[:2])
    session = Session(read_bundle(args.bundle), device=device_options(args))
    predictor = find_family(session.model.family).predictor(session)

    start = time.perf_counter()
    predictor.set_image(image)
    encoded = time.perf_counter()
    masks, scores, _ = predictor.predict(
        points if len(points) else None, labels if len(points) else None, corners, multimask_output=args.multimask
    )
    decoded = time.perf_counter()

    best = int(scores.argmax())
    save_overlay(args.output, image, masks[best], points, labels, corners)
    if args.mask_out is not None:
        Image.fromarray(masks[best].astype(np.uint8) * 255).save(args.mask_out)
    for index, (mask, score) in enumerate(zip(masks, scores, strict=True)):
        chosen = ", drawn" if len(scores) > 1 and index == best else ""
        result("mask", f"score {score:.3f}, {int(mask.sum())} pixels, {mask.mean():.1%} of the picture{chosen}")
    if session.accelerator is not None:
        cycles = sum(each.counters["cycles"] for each in session.accelerator.counters())
        result("device", f"{session.accelerator.device}: {cycles / 1e6:.2f} M cycles for a picture and a prompt")
    result("time", f"picture {duration(encoded - start)}, prompt {duration(decoded - encoded)}")
    result("written", ", ".join(str(path) for path in (args.output, args.mask_out) if path is not None))


def _refuse_outside(points: np.ndarray, corners: np.ndarray | None, size: tuple[int, int]) -> None:
    """The predictor checks this too, but only after the model has been loaded and has seen the picture."""
    from tvm_ahcq.models.sam.prompts import check_inside

    check_inside("point", points, size)
    if corners is not None:
        check_inside("box corner", corners.reshape(2, 2), size)


def _refuse_overwriting(args: argparse.Namespace) -> None:
    """No output may take the place of an input or of the other output."""
    used = {args.bundle.resolve(): args.bundle, args.image.resolve(): args.image}
    for path in (args.output, args.mask_out):
        if path is None:
            continue
        if path.resolve() in used:
            raise UsageError(f"segment: {path} would overwrite {used[path.resolve()]}; choose another name")
        used[path.resolve()] = path
