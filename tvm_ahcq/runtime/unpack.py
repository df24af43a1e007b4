"""A bundle as plain files, for programs that run it without Python: the library, and the tensors that it takes."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from tvm_ahcq.errors import BundleError
from tvm_ahcq.models.registry import find_family

from .bundle import LIBRARY, Bundle
from .ffi import tvm_ffi, tvm_runtime
from .weights import QLinearWeight, expand

GOLDEN = "golden.params"
"""The image of the golden pair, as the encoder takes it."""


def unpack(bundle: Bundle, folder: str | os.PathLike[str]) -> list[Path]:
    """Writes ``library.so``, and for each of its functions ``<name>.params``.

    A ``.params`` file is what TVM's ``runtime.LoadParamsFromFile`` reads: a map from names to tensors. Those of a
    function are its arguments after the inputs, named ``0000``, ``0001``, ... in their order. ``golden.params`` holds
    ``image``, ``(1, 3, S, S)`` float32, if the bundle has a golden pair.

    Parameters
    ----------
    bundle : Bundle
        As read; its chosen target is written.
    folder : path-like
        Made if it is not there; files in it are overwritten.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    BundleError
        The folder cannot be written to.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        library = folder / LIBRARY
        library.write_bytes(bundle.library)
        written = [library]
        for name, function in bundle.manifest.functions.items():
            written.append(_save(folder / f"{name}.params", _numbered(bundle, function.params)))
        if bundle.golden:
            written.append(_save(folder / GOLDEN, {"image": _golden_image(bundle)}))
    except OSError as error:
        raise BundleError(f"{folder}: cannot be written: {error.strerror or error}") from error
    return written


def _numbered(bundle: Bundle, params: Iterable[str]) -> dict[str, np.ndarray]:
    """Arguments after the inputs; a quantized weight is several."""
    arrays: list[np.ndarray] = []
    for name in params:
        record = bundle.tensors[name]
        arrays += expand(record) if isinstance(record, QLinearWeight) else (record,)
    return {f"{number:04d}": array for number, array in enumerate(arrays)}


def _golden_image(bundle: Bundle) -> np.ndarray:
    model = bundle.manifest.model
    return find_family(model.family).prepare(model, bundle.golden["image"])


def _save(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    """Writes tensors by name in TVM's format."""
    tvm_runtime()
    ffi = tvm_ffi()
    path.write_bytes(b"")  # TVM's own error does not say why
    tensors = {name: ffi.from_dlpack(np.require(array, None, ["C", "W", "O"])) for name, array in arrays.items()}
    ffi.get_global_func("runtime.SaveParamsToFile")(tensors, str(path))
    return path
