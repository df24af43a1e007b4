"""``tvm-ahcq scenes``: annotated pictures to try the other commands on, made on the spot."""

from __future__ import annotations

import argparse

from .arguments import count, new_folder
from .console import result

FIRST = 30_000_000
"""Number of the first scene: neither training, nor calibration, nor a self-check has seen those from here on."""

EXAMPLES = """\
example:
  tvm-ahcq scenes try/ --count 50
  tvm-ahcq eval vit_t.ahcq --images try/images --masks try/masks
  tvm-ahcq eval vit_t.ahcq --images try/images --coco try/instances.json --detections try/detections.json

The pictures (256 x 256) are what vit_t was trained on: textured shapes, not the world. One picture more has no object.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "scenes",
        help="write annotated pictures to try things on",
        description="Write generated pictures with masks, as a COCO instance file too, and "
        "with the results of an imperfect detector.",
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", type=new_folder, help="folder to write to")
    parser.add_argument("--count", metavar="N", type=count, default=50, help="how many (default: %(default)s)")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write them, and say where."""
    from tvm_ahcq.evaluate.datasets.scene_files import DETECTIONS, IMAGES, INSTANCES, MASKS, write_scenes

    write_scenes(args.folder, FIRST, args.count)
    for label, name in (("pictures", IMAGES), ("masks", MASKS), ("COCO", INSTANCES), ("detector", DETECTIONS)):
        result(label, str(args.folder / name))
