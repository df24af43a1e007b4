"""Makes ``import torchvision`` work beside a CPU-only torch.

The torchvision wheel on PyPI is built against CUDA. Next to a CPU build of torch its operator library cannot be loaded,
and the import fails because ``torchvision::nms`` was never registered. segment-anything imports torchvision for its
resizing and, in automatic mask generation, for ``nms``; so we register the operators ourselves, and only then.
"""

from __future__ import annotations

import torch

_LIBRARY: torch.library.Library | None = None
"""Keeps the registration alive: it is undone when the library object is collected."""


def _nms(dets: torch.Tensor, scores: torch.Tensor, iou_threshold: float) -> torch.Tensor:
    """Greedy non-maximum suppression, as ``torchvision.ops.nms``: indices of kept boxes, best score first."""
    order = scores.argsort(descending=True, stable=True)
    area = (dets[:, 2] - dets[:, 0]) * (dets[:, 3] - dets[:, 1])
    keep = []
    while order.numel():
        best, rest = order[0], order[1:]
        keep.append(best)
        low = torch.maximum(dets[best, :2], dets[rest, :2])
        high = torch.minimum(dets[best, 2:], dets[rest, 2:])
        overlap = (high - low).clamp(min=0).prod(dim=1)
        order = rest[overlap <= iou_threshold * (area[best] + area[rest] - overlap)]
    return torch.stack(keep) if keep else torch.empty(0, dtype=torch.int64)


def ensure_torchvision() -> None:
    """Import torchvision, registering its missing operators first where the plain import fails."""
    global _LIBRARY
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
        import sys

        for name in [n for n in sys.modules if n == "torchvision" or n.startswith("torchvision.")]:
            del sys.modules[name]
        _LIBRARY = torch.library.Library("torchvision", "DEF")
        schema = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        for name in ("nms", "qnms"):
            _LIBRARY.define(name + schema)
        _LIBRARY.impl("nms", _nms, "CPU")
        import torchvision  # noqa: F401
