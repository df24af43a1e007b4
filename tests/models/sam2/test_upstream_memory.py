"""Upstream's memory attention behind our functions against ours."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from tvm_ahcq.api import float_session
from tvm_ahcq.models.float_model import FloatModel
from tvm_ahcq.models.sam2.timing import example_inputs
from tvm_ahcq.models.sam2.upstream_memory import EAGER


def test_both_forms_compute_the_same(sam2: Any, video_model: FloatModel) -> None:
    session = float_session(video_model)
    (frame,) = example_inputs(session.model, "attend_frame", 1)
    _, *memory = example_inputs(session.model, "attend_memory", 1)
    (ours,) = session.run("attend_memory", *session.run("attend_frame", frame), *memory)
    first, second = (EAGER[name](sam2) for name in ("attend_frame", "attend_memory"))
    theirs = second(first(torch.from_numpy(frame)), *map(torch.from_numpy, memory)).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
