"""What the tests of the comparison share."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.bench.task import Task, write_task
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.models.sam2.spec import Sam2Spec


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    """Noise of the embedded model's size."""
    return np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def task(tmp_path_factory: pytest.TempPathFactory, image: np.ndarray) -> Task:
    """The embedded model; its bundle is a file that is none."""
    folder = tmp_path_factory.mktemp("bench")
    bundle = folder / "damaged.ahcq"
    bundle.write_text("this is not a bundle")
    mean, std = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
    made = Task(SamSpec("vit_t", 256, 16, 128, 0.0, mean, std), bundle, None, folder / "work", 1)
    write_task(made, image, (128, 100))
    return made


@pytest.fixture(scope="session")
def video_task(tmp_path_factory: pytest.TempPathFactory, task: Task, image: np.ndarray) -> Task:
    """The embedded SAM 2 with its memory."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    spec = Sam2Spec(
        "sam2_n", 256, 16, 128, 0.0, mean, std, 0.05, 0.98, True, 7, 16, 32, 20.0, -10.0, True, True, -1, 1, (0, 1)
    )
    made = replace(task, model=spec, folder=tmp_path_factory.mktemp("video") / "work")
    write_task(made, image, (128, 100))
    return made


@pytest.fixture
def model_input(image: np.ndarray, task: Task) -> np.ndarray:
    """The image as the encoder takes it, ``(1, 3, 256, 256)`` float32."""
    mean, std = (np.array(figures, np.float32) for figures in (task.model.pixel_mean, task.model.pixel_std))
    return np.ascontiguousarray(((image - mean) / std).transpose(2, 0, 1)[None])


@pytest.fixture
def prompt() -> tuple[np.ndarray, np.ndarray]:
    """A click with padding."""
    return np.array([[[128, 100], [0, 0]]], np.float32), np.array([[1, -1]], np.float32)


@pytest.fixture
def work(tmp_path: Path) -> Path:
    return tmp_path / "work"
