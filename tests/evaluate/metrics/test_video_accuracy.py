"""J and F over data sets, against evaluators that read the same files and follow the official algorithms."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation, binary_erosion
from skimage.morphology import disk

from tvm_ahcq.evaluate.datasets.video_folders import LAYOUTS, VideoSet, read_videos
from tvm_ahcq.evaluate.datasets.video_objects import video_objects
from tvm_ahcq.evaluate.datasets.vos_predictions import PredictionFolder
from tvm_ahcq.evaluate.metrics.video_accuracy import VIDEO_METRICS, VideoAccuracy, score_video, video_accuracy

Scores = dict[tuple[str, int], tuple[float, float]]
"""J and F by video and object."""


def labels_of(path: Path) -> np.ndarray:
    """Pixels of a PNG as they are stored."""
    return np.asarray(Image.open(path)).astype(int)


def outline(mask: np.ndarray) -> np.ndarray:
    """Contour of DAVIS: unlike the right, lower, lower right neighbour; corrected in the last row and column."""
    padded = np.pad(mask, ((0, 1), (0, 1)))
    edge = (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])
    edge[-1], edge[:, -1] = mask[-1] ^ padded[-2, 1:], mask[:, -1] ^ padded[1:, -2]
    edge[-1, -1] = False
    return edge


def j_of(found: np.ndarray, truth: np.ndarray) -> float:
    """Jaccard index; 1 for two empty masks."""
    union = (found | truth).sum()
    return 1.0 if union == 0 else (found & truth).sum() / union


def f_of(found: np.ndarray, truth: np.ndarray) -> float:
    """F of DAVIS by dilation with a disc."""
    disc = disk(int(np.ceil(0.008 * np.linalg.norm(truth.shape))))
    own, other = outline(found), outline(truth)
    precision = recall = 1.0
    if own.any() and other.any():
        precision = (own & binary_dilation(other, disc)).sum() / own.sum()
        recall = (other & binary_dilation(own, disc)).sum() / other.sum()
    elif own.any():
        precision = 0.0
    elif other.any():
        recall = 0.0
    return 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)


def davis_evaluator(truth: Path, found: Path) -> Scores:
    """DAVIS 2017, semi-supervised: objects of the first frame, all frames but the first and the last."""
    scores = {}
    for folder in sorted(truth.iterdir()):
        files = sorted(folder.glob("*.png"))
        for number in range(1, labels_of(files[0]).max() + 1):
            pairs = [(labels_of(found / folder.name / f.name) == number, labels_of(f) == number) for f in files[1:-1]]
            scores[folder.name, number] = (
                float(np.mean([j_of(*pair) for pair in pairs])),
                float(np.mean([f_of(*pair) for pair in pairs])),
            )
    return scores


def sav_evaluator(truth: Path, found: Path) -> Scores:
    """SA-V: an object counts from the first frame that shows it in either, if the annotation ever shows it."""
    scores: Scores = {}
    for video in sorted(truth.iterdir()):
        separate = all(each.is_dir() for each in video.iterdir())
        for folder in sorted(video.iterdir()) if separate else [video]:
            values: dict[int, list[tuple[float, float]]] = defaultdict(list)
            in_truth: set[int] = set()
            for file in sorted(folder.glob("*.png"))[1:-1]:
                own, other = labels_of(found / file.relative_to(truth)), labels_of(file)
                if separate:
                    own, other = (own > 0) * int(folder.name), (other > 0) * int(folder.name)
                in_truth |= set(np.unique(other)) - {0}
                for number in in_truth | set(values) | set(np.unique(own)) - {0}:
                    values[number].append((j_of(own == number, other == number), f_of(own == number, other == number)))
            for number in in_truth:
                j, f = np.mean(values[number], axis=0)
                scores[video.name, int(number)] = float(j), float(f)
    return scores


def scores_of(accuracy: VideoAccuracy) -> Scores:
    """J and F by video and object."""
    return {(score.video, score.number): (score.j, score.f) for score in accuracy.scores}


EVALUATORS = {"davis": davis_evaluator, "sav": sav_evaluator, "mose": sav_evaluator}


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_scores_are_those_of_the_benchmarks_evaluator_on_the_files_that_were_written(
    dataset: str, video_set: Callable, tmp_path: Path, colour_tracker
) -> None:
    root = video_set(dataset)
    data = read_videos(root)
    folder = PredictionFolder(tmp_path / "predictions", data.layout.per_object)
    accuracy = video_accuracy(data, lambda: colour_tracker, VIDEO_METRICS["official"], folder)
    expected = EVALUATORS[dataset](root / data.layout.folders[0][1], tmp_path / "predictions")
    assert len(expected) >= 4 and accuracy.objects == len(expected) and accuracy.tracked == 2
    found = scores_of(accuracy)
    assert found.keys() == expected.keys()
    for key, values in expected.items():
        assert found[key] == pytest.approx(values, abs=1e-9), key
    j, f = np.mean(list(expected.values()), axis=0)
    assert (accuracy.j, accuracy.f, accuracy.jf) == pytest.approx((j, f, (j + f) / 2), abs=1e-9)
    assert 0.02 < accuracy.jf < 0.98


@pytest.mark.parametrize("dataset", LAYOUTS)
def test_scores_without_files_are_the_same(dataset: str, video_set: Callable, tmp_path: Path, colour_tracker) -> None:
    data = read_videos(video_set(dataset))
    metric = VIDEO_METRICS["official"]
    folder = PredictionFolder(tmp_path / "predictions", data.layout.per_object)
    without = video_accuracy(data, lambda: colour_tracker, metric)
    assert video_accuracy(data, lambda: colour_tracker, metric, folder) == without


@pytest.mark.parametrize("dataset", ["sav", "mose"])
def test_hidden_and_late_objects_count_as_for_sav(
    dataset: str, tmp_path: Path, add_video: Callable, clip_masks: Callable
) -> None:
    """Objects that come, go, never return; predictions that are early, late, or missing."""
    frames, _ = clip_masks(1, 21)
    rng = np.random.default_rng(2)
    size = frames.shape[1:3]
    masks = {number: np.zeros((21, *size), bool) for number in range(1, 7)}
    for number, mask in masks.items():
        mask[:, 16 * number : 16 * number + 12, 20:60] = True
    masks[2][4:], masks[3][5:13], masks[4][:9], masks[5][17:] = False, False, False, False
    masks[6][:20] = False
    add_video(tmp_path / "set", dataset, "walk", frames, masks)
    predicted = {number: mask & (rng.random((21, 1, 1)) < 0.6) for number, mask in masks.items()}
    predicted[4][5:9, :10, :10] = True
    data = read_videos(tmp_path / "set", dataset)
    (video,) = data.videos
    objects = video_objects(video)
    folder = PredictionFolder(tmp_path / "found", data.layout.per_object)
    per_frame = [(t, {each.number: predicted[each.number][t] for each in objects}) for t in range(21)]
    for frame, found in per_frame:
        folder.write(video, frame, found)
    scores = score_video(video, objects, per_frame, VIDEO_METRICS["official"], data.layout)
    expected = sav_evaluator(tmp_path / "set" / data.layout.folders[0][1], tmp_path / "found")
    assert {(score.video, score.number) for score in scores} == expected.keys()
    for score in scores:
        assert (score.j, score.f) == pytest.approx(expected[score.video, score.number], abs=1e-9), score.number


def test_a_late_object_of_davis_is_scored_after_the_frame_that_shows_it(
    tmp_path: Path, add_video: Callable, clip_masks: Callable, colour_tracker
) -> None:
    frames, masks = clip_masks(3)
    late = max(masks)
    masks[late][:4] = False
    add_video(tmp_path, "davis", "walk", frames, masks)
    accuracy = video_accuracy(read_videos(tmp_path), lambda: colour_tracker, VIDEO_METRICS["official"])
    assert {score.number: score.frames for score in accuracy.scores} == {number: 7 for number in masks} | {late: 3}


@pytest.mark.parametrize("dataset", ["davis", "sav"])
def test_the_published_metric_is_a_mean_over_frames_of_bands(
    dataset: str, video_set: Callable, tmp_path: Path, colour_tracker
) -> None:
    def edge_band(mask: np.ndarray) -> np.ndarray:
        steps = max(1, round(0.02 * float(np.hypot(*mask.shape))))
        return binary_erosion(mask, iterations=steps) ^ binary_dilation(mask, iterations=steps)

    root = video_set(dataset)
    data = read_videos(root)
    folder = PredictionFolder(tmp_path / "found", per_object=True)
    accuracy = video_accuracy(data, lambda: colour_tracker, VIDEO_METRICS["ahcq-sam"], folder)
    js, fs = [], []
    for video in data.videos:
        truths = root / data.layout.folders[0][1] / video.name
        for number in sorted({score.number for score in accuracy.scores if score.video == video.name}):
            if data.layout.per_object:
                pairs = [(file, labels_of(file) > 0) for file in sorted((truths / f"{number:03d}").iterdir())]
            else:
                pairs = [(file, labels_of(file) == number) for file in sorted(truths.iterdir())]
                pairs = [pair for pair in pairs if pair[1].any()]
            for file, truth in pairs[1:-1] if len(pairs) >= 3 else pairs:
                found = labels_of(tmp_path / "found" / video.name / f"{number:03d}" / file.name) > 0
                own, other = edge_band(found), edge_band(truth)
                shared = (own & other).sum() + 1e-6
                precision, recall = shared / (own.sum() + 1e-6), shared / (other.sum() + 1e-6)
                js.append(j_of(found, truth))
                fs.append(2 * precision * recall / (precision + recall))
    assert sum(score.frames for score in accuracy.scores) == len(js) > 20
    assert (accuracy.j, accuracy.f) == pytest.approx((np.mean(js), np.mean(fs)), abs=1e-9)


def test_logits_up_to_one_half_are_background_for_the_published_metric(video_set: Callable, tmp_path: Path) -> None:
    class Faint:
        """Returns 0.4 everywhere."""

        def init_state(self, video_path: str) -> dict[int, int]:
            return {}

        def add_new_mask(self, inference_state: dict[int, int], frame_idx: int, obj_id: int, mask: np.ndarray) -> None:
            inference_state[obj_id] = frame_idx

        def propagate_in_video(self, inference_state: dict[int, int], start_frame_idx: int | None = None):
            for frame in range(start_frame_idx or 0, 9):
                yield frame, list(inference_state), np.full((len(inference_state), 1, 112, 128), 0.4, np.float32)

        def reset_state(self, inference_state: dict[int, int]) -> None:
            inference_state.clear()

    data = read_videos(video_set("davis"))
    assert video_accuracy(data, Faint, VIDEO_METRICS["ahcq-sam"]).j == 0
    assert (video_accuracy(data, Faint, VIDEO_METRICS["official"]).j or 0) > 0.01


def test_complete_videos_are_not_tracked_again_and_others_are(
    video_set: Callable, tmp_path: Path, colour_tracker
) -> None:
    data = read_videos(video_set("davis"))
    folder = PredictionFolder(tmp_path / "predictions", per_object=False)
    metric = VIDEO_METRICS["official"]

    def measure() -> VideoAccuracy:
        colour_tracker.opened.clear()
        return video_accuracy(data, lambda: colour_tracker, metric, folder)

    first = measure()
    assert colour_tracker.opened == ["walk", "run"]
    again = measure()
    assert colour_tracker.opened == [] and again.tracked == 0
    assert scores_of(again) == scores_of(first) and "2 videos had predictions" in again.summary()
    (tmp_path / "predictions" / "run" / "00004.png").unlink()
    third = measure()
    assert colour_tracker.opened == ["run"] and scores_of(third) == scores_of(first)
    whole = tmp_path / "predictions" / "walk" / "00002.png"
    whole.write_bytes(whole.read_bytes()[:-20])
    assert scores_of(measure()) == scores_of(first) and colour_tracker.opened == ["walk"]


def test_an_interruption_leaves_whole_files_and_the_rest_for_the_next_run(
    video_set: Callable, tmp_path: Path, colour_tracker
) -> None:
    data = read_videos(video_set("sav"))
    folder = PredictionFolder(tmp_path / "predictions", per_object=True)
    metric = VIDEO_METRICS["official"]

    def interrupt(name: str, done: int, total: int) -> None:
        if name == "run" and done % 21 == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video_accuracy(data, lambda: colour_tracker, metric, folder, interrupt)
    files = [path for path in (tmp_path / "predictions").rglob("*") if path.is_file()]
    assert all(path.suffix == ".png" and labels_of(path).max() <= 1 for path in files) and len(files) > 21
    colour_tracker.opened.clear()
    resumed = video_accuracy(data, lambda: colour_tracker, metric, folder)
    assert colour_tracker.opened == ["run"]
    assert scores_of(resumed) == scores_of(video_accuracy(data, lambda: colour_tracker, metric))


def test_one_annotated_frame_gives_predictions_and_no_score(
    video_set: Callable, tmp_path: Path, colour_tracker
) -> None:
    root = video_set("mose")
    for path in (root / "Annotations").rglob("*.png"):
        if path.stem != "00000":
            path.unlink()
    data: VideoSet = read_videos(root)
    folder = PredictionFolder(tmp_path / "predictions", per_object=False)
    accuracy = video_accuracy(data, lambda: colour_tracker, VIDEO_METRICS["official"], folder)
    assert accuracy.figures() == {"J&F": None, "J": None, "F": None} and accuracy.scores == ()
    assert len(list((tmp_path / "predictions").rglob("*.png"))) == 2 * 9
