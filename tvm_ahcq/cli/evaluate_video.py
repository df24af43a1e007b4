"""The part of ``tvm-ahcq eval`` that follows objects through videos: ``--vos``."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from .arguments import UsageError, input_file, new_folder
from .evaluate_data import EvaluationData
from .models import check_video

if TYPE_CHECKING:
    from tvm_ahcq.evaluate.datasets.vos_predictions import PredictionFolder
    from tvm_ahcq.evaluate.metrics.variants import Variant
    from tvm_ahcq.evaluate.metrics.video_accuracy import VideoAccuracy
    from tvm_ahcq.progress import Progress

DATASETS = ("davis", "sav", "mose")
METRICS = ("official", "ahcq-sam")

EXAMPLES = """\
videos:
  DAVIS 2017 val, J&F:             tvm-ahcq eval sam2_t.ahcq --vos DAVIS/ -o predictions/ --json davis.json
  SA-V val or test:                tvm-ahcq eval sam2_t.ahcq --vos sav_val/ -o predictions/
  MOSE, for its server:            tvm-ahcq eval sam2_t.ahcq --vos MOSE/valid/ -o predictions/
  as AHCQ-SAM was published:       tvm-ahcq eval sam2_t.ahcq --vos DAVIS/ --metric ahcq-sam
  what 4 bits cost:                tvm-ahcq eval float sam2_t.ahcq --model sam2.1_hiera_t --checkpoint F.pt --vos DAVIS/
  without data of your own:        tvm-ahcq scenes try/ --clips 5 && tvm-ahcq eval sam2_t.ahcq --vos try

Videos: each object is shown by its first mask, or with --prompt click or box by a click on it or its box there, and
followed to the end. Reported are J (IoU of regions), F (contours)
and their mean, over an object's annotated frames but the first and the last, then over objects. With -o, masks are
written as the benchmark wants them, and a video whose masks are complete is not computed again: run the same line to
resume.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that go with ``--vos``."""
    videos = parser.add_argument_group("videos")
    videos.add_argument(
        "--dataset",
        choices=DATASETS,
        help="layout of the folder: DAVIS 2017, SA-V or MOSE (default: the one whose folders are there)",
    )
    videos.add_argument(
        "--video-list",
        metavar="F.txt",
        type=input_file,
        help="names of the videos, one a line (default: the benchmark's own list, else all)",
    )
    videos.add_argument(
        "--metric",
        choices=METRICS,
        help="official: as the benchmark's evaluator (default); ahcq-sam: as the script of AHCQ-SAM's authors, with "
        "post-processing, logits above 0.5, bands for contours, and the mean over all frames",
    )
    videos.add_argument(
        "-o",
        "--predictions",
        metavar="DIR",
        type=new_folder,
        help="write masks there, and resume from those that are there; with several models, in a folder for each",
    )


def check(args: argparse.Namespace) -> None:
    """Refuse what does not go together."""
    if args.vos is None:
        for option in ("dataset", "video_list", "metric", "predictions"):
            if getattr(args, option) is not None:
                raise UsageError(f"eval: --{option.replace('_', '-')} is for videos; it needs --vos DIR")
        if args.prompt == "mask":
            raise UsageError("eval: --prompt mask is for videos; for pictures give click, box or both")
        return
    if args.prompt == "both":
        raise UsageError("eval: --prompt both is for pictures; with --vos give mask, click or box")
    for option in ("images", "detections", "void"):
        if getattr(args, option) is not None:
            raise UsageError(f"eval: --{option} is for pictures; it does not go with --vos")
    if args.model is not None:
        check_video("eval", args.model)
    stems = [Path(each).stem for each in args.models]
    if args.predictions is not None and len(set(stems)) < len(stems):
        raise UsageError("eval: two models have the same file name, and would write to the same folder of predictions")


def video_data(args: argparse.Namespace) -> EvaluationData:
    """The videos, checked before any model is loaded."""
    from tvm_ahcq.errors import EvaluationError
    from tvm_ahcq.evaluate.datasets.video_folders import read_videos
    from tvm_ahcq.evaluate.metrics.video_accuracy import VIDEO_METRICS, video_accuracy

    data = read_videos(args.vos, args.dataset, args.video_list, args.limit)
    name = args.metric or METRICS[0]
    metric = VIDEO_METRICS[name]
    scored = sum(len(video.annotated()) > 2 for video in data.videos)
    if not scored and args.predictions is None:
        raise EvaluationError(
            f"{args.vos}: no video has masks beyond its first, so that nothing can be scored; write the "
            "predicted masks with -o DIR, and hand them in where the benchmark scores them"
        )
    frames = sum(len(video.frames) for video in data.videos)
    prompt = args.prompt or "mask"
    claim = {"metric": name, "dataset": data.layout.title, "prompt": prompt}
    overlap = metric.overlap or data.layout.per_object
    folders = {str(path): _predictions(args, path, claim, overlap) for path in args.models}

    def measure(variant: Variant, progress: Progress) -> VideoAccuracy:
        folder = folders[variant.name]
        return video_accuracy(data, lambda: variant.open_video(**metric.options), metric, folder, progress, prompt)

    content = {
        "videos": str(args.vos),
        "dataset": data.layout.title,
        "names": [video.name for video in data.videos],
        "frames": frames,
        "metric": name,
        "prompt": prompt,
        "predictions": None if args.predictions is None else str(args.predictions),
    }
    what = "J&F" if scored else "nothing: no video has masks beyond its first"
    return EvaluationData(
        f"{args.vos}: {data.layout.title}, {len(data.videos)} videos, {frames} frames",
        f"{what} (metric {name}), from the first {prompt} of each object",
        content,
        measure,
    )


def _predictions(
    args: argparse.Namespace, model: str | Path, claim: dict[str, str], overlap: bool
) -> PredictionFolder | None:
    """Folder of predictions of one model, claimed for it."""
    if args.predictions is None:
        return None
    from tvm_ahcq.evaluate.datasets.vos_predictions import PredictionFolder

    root = args.predictions if len(args.models) == 1 else args.predictions / Path(model).stem
    folder = PredictionFolder(root, overlap)
    if isinstance(model, Path):
        claim = {"bundle_sha256": hashlib.sha256(model.read_bytes()).hexdigest(), **claim}
    else:
        given = {key: str(getattr(args, key)) for key in ("model", "checkpoint", "recipe", "bits", "calibration")}
        claim = {"bundle_sha256": model, **given, **claim}
    folder.claim(claim)
    return folder
