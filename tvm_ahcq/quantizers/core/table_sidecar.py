"""The file beside a quantization table: weight codes, changed float parameters and the equalisation.

A table is for people to read; arrays go to a safetensors file next to it, whose hash the table keeps.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from tvm_ahcq.errors import QuantTableError

SUFFIX = ".params.safetensors"

EQUALISATION = "equalisation:"
"""Prefix of the names of arrays that belong to the equalisation; a number, which keeps their order, follows."""


@dataclass(frozen=True)
class Sidecar:
    """Arrays of a quantization table.

    Attributes
    ----------
    params : mapping of str to numpy.ndarray
        Changed float parameters, float32.
    codes : mapping of str to numpy.ndarray
        Codes of rounded weights, uint8.
    equalisation : mapping of str to numpy.ndarray
        Equalised parameters in their order, float64.
    """

    params: Mapping[str, np.ndarray] = field(default_factory=dict)
    codes: Mapping[str, np.ndarray] = field(default_factory=dict)
    equalisation: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.params or self.codes or self.equalisation)

    def pack(self) -> bytes:
        """Return the content of the file."""
        arrays = {
            f"{EQUALISATION}{number:05}:{name}": np.ascontiguousarray(values, np.float64)
            for number, (name, values) in enumerate(self.equalisation.items())
        }
        arrays |= {name: np.ascontiguousarray(array, np.float32) for name, array in self.params.items()}
        arrays |= {name: np.ascontiguousarray(array, np.uint8) for name, array in self.codes.items()}
        return save(arrays)

    @classmethod
    def unpack(cls, content: bytes) -> Sidecar:
        """Return the inverse of :meth:`pack`; uint8 arrays are codes."""
        params, codes, equalisation = {}, {}, {}
        for name, array in sorted(load(content).items()):
            if name.startswith(EQUALISATION):
                equalisation[name.removeprefix(EQUALISATION).partition(":")[2]] = array
            elif array.dtype == np.uint8:
                codes[name] = array
            else:
                params[name] = array
        return cls(params, codes, equalisation)


def sidecar_path(path: Path) -> Path:
    """Return the path of the file beside the table `path`."""
    return path.with_name(path.name.removesuffix(".json") + SUFFIX)


def record_of(path: Path, content: bytes) -> dict[str, str]:
    """Return the entry ``params`` of the table `path`: name and hash of its sidecar."""
    return {"file": sidecar_path(path).name, "sha256": hashlib.sha256(content).hexdigest()}


def read_sidecar(path: Path, record: Any) -> Sidecar:
    """Read the sidecar of the table at `path` whose entry ``params`` is `record`.

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
        return Sidecar.unpack(content)
    except (SafetensorError, ValueError) as error:
        raise QuantTableError(f"{beside}: cannot be used with {path.name}: {error}") from error
