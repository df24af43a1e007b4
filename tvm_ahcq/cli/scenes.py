"""``tvm-ahcq scenes``: annotated pictures or videos to try the other commands on, made on the spot."""

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
  tvm-ahcq scenes videos/ --clips 5
  tvm-ahcq eval sam2_n.ahcq --vos videos/

The pictures (256 x 256) are what vit_t was trained on: textured shapes, not the world. One picture more has no object.
Clips have the folders of DAVIS 2017; their objects are those that show on the first frame.
"""


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to the command line."""
    parser = commands.add_parser(
        "scenes",
        help="write annotated pictures or videos to try things on",
        description="Write generated pictures with masks, as a COCO instance file too, and "
        "with the results of an imperfect detector; or generated videos with masks.",
        epilog=EXAMPLES,
    )
    parser.add_argument("folder", metavar="DIR", type=new_folder, help="folder to write to")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--count", metavar="N", type=count, default=50, help="how many pictures (default: %(default)s)")
    what.add_argument("--clips", metavar="N", type=count, help="write N videos of 16 frames in place of pictures")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> None:
    """Write them, and say where."""
    if args.clips is not None:
        from tvm_ahcq.evaluate.datasets.clip_files import FRAMES, VIDEO_LIST, write_clips
        from tvm_ahcq.evaluate.datasets.clip_files import MASKS as CLIP_MASKS

        write_clips(args.folder, FIRST, args.clips)
        for label, name in (("frames", FRAMES), ("masks", CLIP_MASKS), ("list", VIDEO_LIST)):
            result(label, str(args.folder / name))
        return
    from tvm_ahcq.evaluate.datasets.scene_files import DETECTIONS, IMAGES, INSTANCES, MASKS, write_scenes

    write_scenes(args.folder, FIRST, args.count)
    for label, name in (("pictures", IMAGES), ("masks", MASKS), ("COCO", INSTANCES), ("detector", DETECTIONS)):
        result(label, str(args.folder / name))
