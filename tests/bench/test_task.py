"""Tasks as files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tvm_ahcq.bench.task import Task, read_task, write_task


@pytest.mark.parametrize("checkpoint, target", [(None, None), (Path("/weights/sam_b.pth"), "avx2")])
def test_a_process_reads_the_task_that_another_one_wrote(
    task: Task, work: Path, image: np.ndarray, checkpoint: Path | None, target: str | None
) -> None:
    given = replace(task, folder=work, checkpoint=checkpoint, target=target, threads=3)
    write_task(given, image, (12.5, 7))
    read, same_image, click = read_task(work)
    assert read == given
    np.testing.assert_array_equal(same_image, image)
    assert click.tolist() == [12.5, 7]


def test_peers_keep_their_files_apart(task: Task) -> None:
    names = ["ONNX Runtime float32", "ONNX Runtime int8 dynamic", "tvm-ahcq"]
    folders = {task.peer_folder(name) for name in names}
    assert len(folders) == 3 and {folder.parent for folder in folders} == {task.folder}
