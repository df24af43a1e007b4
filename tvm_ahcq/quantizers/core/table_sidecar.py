"""The file beside a quantization table: parameters that conditioning and rounding changed.

A table is for people to read; arrays go to a safetensors file next to it, whose hash the table keeps. A rounded weight
is stored as its codes, one byte each, since the table's ranges turn them back into values.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tvm_ahcq.errors import QuantTableError
from tvm_ahcq.quantizers.weight.weights import QuantizedWeight, encode_weight

if TYPE_CHECKING:
    from .table import WeightRange

SUFFIX = ".params.safetensors"


def companion(path: Path) -> Path:
    """The file beside the table `path`."""
    return path.with_name(path.name.removesuffix(".json") + SUFFIX)


EQUALISATION = "equalisation:"
"""Begins the names of arrays that belong to the equalisation; its order is in the rest of the name."""


def pack_params(
    params: Mapping[str, np.ndarray], weights: Mapping[str, WeightRange], equalisation: Mapping[str, np.ndarray]
) -> bytes:
    """Content of the file: uint8 codes of rounded weights, float32 of other parameters, float64 of the equalisation."""
    changes = enumerate(equalisation.items())
    arrays = {f"{EQUALISATION}{n:05}:{name}": np.ascontiguousarray(values, np.float64) for n, (name, values) in changes}
    for name, array in params.items():
        arrays[name] = np.ascontiguousarray(array, np.float32)
        if name in weights:
            quantized = encode_weight(array, *weights[name].arrays(), weights[name].bits)
            if np.array_equal(quantized.dequantize(), array):
                arrays[name] = quantized.codes
    return save(arrays)


def unpack_params(
    content: bytes, weights: Mapping[str, WeightRange]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Inverse of :func:`pack_params`: float32 parameters, and the equalisation in its order."""
    params, equalisation = {}, {}
    for name, array in sorted(load(content).items()):
        if name.startswith(EQUALISATION):
            equalisation[name.removeprefix(EQUALISATION).partition(":")[2]] = array
            continue
        if array.dtype == np.uint8 and name in weights:
            array = QuantizedWeight(array, *weights[name].arrays(), weights[name].bits).dequantize()
        params[name] = array
    return params, equalisation


def record_of(path: Path, content: bytes) -> dict[str, str]:
    """What the table says about its companion file."""
    return {"file": companion(path).name, "sha256": hashlib.sha256(content).hexdigest()}


def read_params(
    path: Path, record: Any, weights: Mapping[str, WeightRange]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Changed parameters and equalisation of the table at `path` with the entry `record`.

    Raises
    ------
    QuantTableError
        If the file is missing, or not the one that was written with the table.
    """
    if not isinstance(record, dict) or set(record) != {"file", "sha256"}:
        raise QuantTableError(f'{path}: its entry "params" is {record!r}; expected a file name and a sha256.')
    beside = path.with_name(Path(str(record["file"])).name)
    try:
        content = beside.read_bytes()
    except OSError as error:
        raise QuantTableError(
            f"{path}: its changed parameters are in {beside.name}, which cannot be read ({error.strerror}); "
            "keep both files in one folder, or calibrate again."
        ) from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise QuantTableError(f"{beside}: not the file that was written with {path.name}; calibrate again.")
    try:
        return unpack_params(content, weights)
    except (SafetensorError, ValueError) as error:
        raise QuantTableError(f"{beside}: cannot be used with {path.name}: {error}") from error
