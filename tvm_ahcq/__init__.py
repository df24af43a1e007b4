"""tvm-ahcq: Segment Anything at 4 bits through Apache TVM."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from ._deprecated import install as _install_old_names
from .errors import AhcqError

__version__ = "0.1.0"

_LAZY = {
    "from_sam": "tvm_ahcq.models.sam.load",
    "from_sam2": "tvm_ahcq.models.sam2.load",
    "recipe": "tvm_ahcq.quantizers.core.recipe",
    "quantize": "tvm_ahcq.api",
    "compile": "tvm_ahcq.api",
    "load": "tvm_ahcq.runtime.load",
    "load_video": "tvm_ahcq.runtime.load",
}
"""Public names by home module; loaded on first use, so that ``load`` needs neither torch nor the compiler."""

__all__ = ["AhcqError", "__version__", *_LAZY]

_install_old_names()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tvm_ahcq' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
