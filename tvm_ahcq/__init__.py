"""tvm-ahcq: Segment Anything at 4 bits through Apache TVM."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from .errors import AhcqError

__version__ = "0.1.0"

_ROOT = Path(__file__).resolve().parent.parent
if (_ROOT / "relay_passes").is_dir() and (_ROOT / "codegen").is_dir():
    # Run from the source tree: the two folders become subpackages, as they are once installed.
    __path__.append(str(_ROOT))

_LAZY = {
    "from_sam": "tvm_ahcq.frontend.sam",
    "recipe": "tvm_ahcq.quantizers.recipe",
    "quantize": "tvm_ahcq.compiler",
    "compile": "tvm_ahcq.compiler",
    "load": "tvm_ahcq.runtime.predictor",
}
"""Public names by home module; loaded on first use, so that ``load`` needs neither torch nor the compiler."""

__all__ = ["AhcqError", "__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'tvm_ahcq' has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
