"""J, F and J&F of a predictor that follows objects through videos, from a prompt each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from tvm_ahcq.evaluate.datasets.video_folders import Layout, Video, VideoSet
from tvm_ahcq.evaluate.datasets.video_objects import VideoObject, video_objects
from tvm_ahcq.evaluate.datasets.vos_predictions import PredictionFolder
from tvm_ahcq.progress import Progress, silent

from .iou import iou
from .region_contour import band_accuracy, contour_accuracy
from .video_tracking import to_masks, track

if TYPE_CHECKING:
    from tvm_ahcq.models.execution import VideoPredictor

Frames = Iterator[tuple[int, dict[int, np.ndarray]]]
"""Index of a frame and bool masks ``(H, W)`` by number of the object, frame after frame."""


@dataclass(frozen=True)
class VideoMetric:
    """A way to make masks and to score them.

    Attributes
    ----------
    threshold : float
        Logits above it are in a mask.
    overlap : bool
        Masks of objects may overlap even where the benchmark has one PNG for all.
    contour : callable
        F of two masks.
    mean_of_objects : bool
        The mean over the frames of an object, then over objects; else over all frames at once.
    options : dict
        Options of the predictor.
    """

    threshold: float
    overlap: bool
    contour: Callable[[np.ndarray, np.ndarray], float]
    mean_of_objects: bool
    options: dict[str, Any]

    def frames(self, each: VideoObject, layout: Layout) -> tuple[int, ...]:
        """Return the annotated frames on which an object is scored."""
        if not self.mean_of_objects:
            return each.shown[1:-1] if len(each.shown) >= 3 else each.shown
        if layout.from_first_sight or each.first == each.annotated[0]:
            return each.annotated[1:-1]
        return tuple(frame for frame in each.annotated[:-1] if frame > each.first)


VIDEO_METRICS = {
    "official": VideoMetric(
        0.0,
        False,
        contour_accuracy,
        True,
        {
            "fill_hole_area": 0,
            "non_overlap_masks": False,
            "binarize_mask_from_pts_for_mem_enc": False,
            "stability": False,
        },
    ),
    "ahcq-sam": VideoMetric(0.5, True, band_accuracy, False, {}),
}
"""``official``: masks as SAM 2's ``vos_inference`` makes them, scored as the benchmark's own evaluator does: that of
DAVIS 2017, and that of SA-V for SA-V and MOSE. ``ahcq-sam``: as the script does that AHCQ-SAM was published with."""


@dataclass(frozen=True)
class VideoObjectScore:
    """J and F of one object, means over the frames on which it is scored.

    Attributes
    ----------
    video : str
        Name of the video.
    number : int
        Number of the object.
    frames : int
        Frames on which it was scored.
    j, f : float
        Region similarity (IoU) and contour accuracy, 0 to 1.
    """

    video: str
    number: int
    frames: int
    j: float
    f: float


@dataclass(frozen=True)
class VideoAccuracy:
    """J, F and their mean over a data set; None where no frame could be scored.

    Attributes
    ----------
    jf, j, f : float or None
        J&F, J (region similarity, IoU) and F (contour accuracy), 0 to 1.
    videos, objects : int
        Videos, and objects that were scored.
    tracked : int
        Videos that the predictor went through; predictions of the others were there.
    scores : tuple of VideoObjectScore
        Each object by itself.
    """

    jf: float | None
    j: float | None
    f: float | None
    videos: int
    objects: int
    tracked: int
    scores: tuple[VideoObjectScore, ...] = field(repr=False)

    def figures(self) -> dict[str, float | None]:
        """Return the columns of the table, by title."""
        return {"J&F": self.jf, "J": self.j, "F": self.f}

    def summary(self) -> str:
        """Return the numbers of videos and objects, for people."""
        there = self.videos - self.tracked
        return f"{self.videos} videos, {self.objects} objects" + (f"; {there} videos had predictions" if there else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {**vars(self), "scores": [dict(vars(score)) for score in self.scores]}


def video_accuracy(
    data: VideoSet,
    open_predictor: Callable[[], VideoPredictor],
    metric: VideoMetric,
    predictions: PredictionFolder | None = None,
    progress: Progress = silent,
    prompt: str = "mask",
) -> VideoAccuracy:
    """Follow all objects of all videos, and compare with their masks.

    Parameters
    ----------
    data : VideoSet
        From :func:`.video_folders.read_videos`.
    open_predictor : callable
        Returns the predictor, with the metric's options. It is called for the first video that is not predicted yet.
    metric : VideoMetric
        One of :data:`VIDEO_METRICS`.
    predictions : PredictionFolder, optional
        Where masks are written. A video whose masks are all there is scored from its files.
    progress : callable, optional
        Is told the name of the video, the frames done, and all frames.
    prompt : str
        How objects are shown: one of :data:`.video_tracking.PROMPTS`.

    Returns
    -------
    VideoAccuracy

    Raises
    ------
    EvaluationError
        A file cannot be read or written, or the predictor returns other frames than it should.
    """
    predictor: VideoPredictor | None = None
    scores: list[VideoObjectScore] = []
    tracked = done = 0
    total = sum(len(video.frames) for video in data.videos)
    for video in data.videos:
        objects = video_objects(video)
        numbers = [each.number for each in objects]
        if predictions is not None and predictions.is_complete(video, numbers):
            frames = _read(predictions, video, numbers)
        else:
            predictor = predictor or open_predictor()
            overlap = metric.overlap or data.layout.per_object
            frames = _predict(track(predictor, video, objects, prompt), video, objects, metric.threshold, overlap)
            tracked += 1
            if predictions is not None:
                frames = _write(predictions, video, frames)
        scores += score_video(video, objects, _told(frames, video, progress, done, total), metric, data.layout)
        done += len(video.frames)
    progress("videos", total, total)
    return _summarise(scores, len(data.videos), tracked, metric)


def _predict(
    tracked: Iterable[tuple[int, dict[int, np.ndarray]]],
    video: Video,
    objects: Sequence[VideoObject],
    threshold: float,
    overlap: bool,
) -> Frames:
    numbers = [each.number for each in objects]
    for frame, logits in tracked:
        yield frame, to_masks(logits, numbers, video.size, threshold, overlap)


def _write(predictions: PredictionFolder, video: Video, frames: Frames) -> Frames:
    for frame, masks in frames:
        predictions.write(video, frame, masks)
        yield frame, masks


def _read(predictions: PredictionFolder, video: Video, numbers: Sequence[int]) -> Frames:
    for frame in video.annotated():
        yield frame, predictions.read(video, frame, numbers)


def _told(frames: Frames, video: Video, progress: Progress, done: int, total: int) -> Frames:
    for frame, masks in frames:
        progress(video.name, done + frame, total)
        yield frame, masks


def score_video(
    video: Video,
    objects: Sequence[VideoObject],
    predicted: Iterable[tuple[int, dict[int, np.ndarray]]],
    metric: VideoMetric,
    layout: Layout,
) -> list[VideoObjectScore]:
    """Scores of the objects of one video.

    Parameters
    ----------
    video : Video
        Its annotation.
    objects : sequence of VideoObject
        From :func:`.video_objects.video_objects`.
    predicted : iterable
        Index of a frame and bool masks ``(H, W)`` by number of the object, for every annotated frame at least.
    metric : VideoMetric
        How to score.
    layout : Layout
        Its :attr:`~.Layout.from_first_sight` says which frames count.

    Returns
    -------
    list of VideoObjectScore
        Of the objects that are scored on one frame at least.
    """
    wanted = {each.number: set(metric.frames(each, layout)) for each in objects}
    values: dict[int, list[tuple[float, float]]] = {number: [] for number in wanted}
    annotated: set[int] = set()
    for frame, masks in predicted:
        now = [number for number in wanted if frame in wanted[number]]
        truths = video.read_masks(frame) if now else {}
        for number in now:
            mask, truth = masks[number], truths.get(number)
            if truth is None:
                truth = np.zeros(video.size, bool)
            if truth.any():
                annotated.add(number)
            elif metric.mean_of_objects and layout.from_first_sight and not values[number] and not mask.any():
                continue
            values[number].append((iou(mask, truth), metric.contour(mask, truth)))
    if metric.mean_of_objects and layout.from_first_sight:
        values = {number: each for number, each in values.items() if number in annotated}
    return [
        VideoObjectScore(video.name, number, len(each), *(float(mean) for mean in np.mean(each, axis=0)))
        for number, each in values.items()
        if each
    ]


def _summarise(scores: list[VideoObjectScore], videos: int, tracked: int, metric: VideoMetric) -> VideoAccuracy:
    if not scores:
        return VideoAccuracy(None, None, None, videos, 0, tracked, ())
    weights = None if metric.mean_of_objects else [score.frames for score in scores]
    j = float(np.average([score.j for score in scores], weights=weights))
    f = float(np.average([score.f for score in scores], weights=weights))
    return VideoAccuracy((j + f) / 2, j, f, videos, len(scores), tracked, tuple(scores))
