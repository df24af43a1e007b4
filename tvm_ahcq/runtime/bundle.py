"""The deployable file: one zip with manifest, compiled library, weights, and a golden input/output pair.

The zip comment holds a SHA-256 of every byte before it, so that any damage is found, and the manifest one of each
member, so that it can be named. Members carry a fixed date: equal contents give equal files.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from tvm_ahcq import __version__
from tvm_ahcq.atomic_file import atomic_file
from tvm_ahcq.errors import BundleError

from . import cpu
from .manifest import FORMAT_VERSION, Manifest, TargetSpec
from .weights import QLinearWeight, from_record, record_sizes, to_record

MANIFEST, LIBRARY, GOLDEN = "manifest.json", "library.so", "golden.npz"
"""Members with a fixed name."""

_SEAL = b"tvm-ahcq bundle sha256 "
_DIGEST_CHARACTERS = 64
_DATE = (1980, 1, 1, 0, 0, 0)
_DEFLATE_PAYS = 0.95
"""A member is deflated only where that saves at least 5%."""


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Attributes
    ----------
    path : Path
        Where it was read from.
    manifest : Manifest
        What it says about itself.
    target : TargetSpec
        The one of the manifest's targets that was chosen.
    libraries : dict of str to bytes
        The compiled shared library for each target, by its name.
    tensors : Mapping of str to numpy.ndarray or QLinearWeight
        Parameters by record name, decoded on access.
    golden : dict of str to numpy.ndarray
        Input and expected output of the self-check; empty where the bundle has none.
    """

    path: Path
    manifest: Manifest
    target: TargetSpec
    libraries: dict[str, bytes]
    tensors: Mapping[str, np.ndarray | QLinearWeight]
    golden: dict[str, np.ndarray]

    @property
    def library(self) -> bytes:
        """The library for the chosen target."""
        return self.libraries[self.target.name]


class _Tensors(Mapping):
    """Decodes a record each time it is asked for, so that not all unpacked codes are in memory at once."""

    def __init__(self, index: Mapping[str, Mapping[str, Any]], members: Mapping[str, bytes], layout: str) -> None:
        self._index, self._members, self._layout = index, members, layout

    def __getitem__(self, name: str) -> np.ndarray | QLinearWeight:
        info = self._index[name]
        data = self._members[info["member"]]
        if info["kind"] == "qlinear":
            return from_record({**info, "layout": self._layout or info["layout"]}, data)
        return np.frombuffer(data, info["stored"]).astype(info["dtype"], copy=False).reshape(info["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._index)

    def __len__(self) -> int:
        return len(self._index)


# ---- writing


def write_bundle(
    path: str | os.PathLike[str],
    manifest: Manifest,
    library: bytes | Mapping[str, bytes],
    tensors: Mapping[str, np.ndarray | QLinearWeight],
    golden: Mapping[str, np.ndarray] | None = None,
) -> Manifest:
    """Write a bundle: to a temporary file in the same folder, which then takes the place of `path`.

    Parameters
    ----------
    path : path-like
        Where to. An older file stays whole until the new one is complete.
    manifest : Manifest
        ``weight_bits``, ``created_by`` and ``format_version`` are filled in here.
    library : bytes or mapping of str to bytes
        The compiled shared library; with several targets, that of each by its name.
    tensors : mapping of str to numpy.ndarray or QLinearWeight
        Every record that ``manifest.functions`` names.
    golden : mapping of str to numpy.ndarray, optional
        What ``Session.verify`` runs and expects.

    Returns
    -------
    Manifest
        As written.

    Raises
    ------
    BundleError
        The file cannot be written, or a function names a parameter that is not in `tensors`.
    """
    path = Path(os.path.realpath(path))
    for name, function in manifest.functions.items():
        absent = [param for param in function.params if param not in tensors]
        if absent:
            raise BundleError(f"{path.name}: function {name} takes parameters that were not given: {absent[:5]}")
    libraries = {manifest.target.name: library} if isinstance(library, bytes) else dict(library)
    if list(libraries) != [target.name for target in manifest.targets]:
        raise BundleError(
            f"{path.name}: has libraries for {', '.join(libraries)}; its manifest names "
            f"{', '.join(target.name for target in manifest.targets)}"
        )
    try:
        with atomic_file(path) as file:
            manifest = _write_members(file, manifest, libraries, tensors, golden or {})
            _seal(file)
    except OSError as error:
        kept = "; the file that was there is unchanged" if path.exists() else ""
        raise BundleError(f"{path}: cannot be written: {error.strerror or error}{kept}") from error
    return manifest


def _write_members(
    file: IO[bytes],
    manifest: Manifest,
    libraries: Mapping[str, bytes],
    tensors: Mapping[str, np.ndarray | QLinearWeight],
    golden: Mapping[str, np.ndarray],
) -> Manifest:
    """Write the zip; returns the completed manifest."""
    index: dict[str, dict[str, Any]] = {}
    members: dict[str, dict[str, Any]] = {}
    stored_bits = weights = 0
    with zipfile.ZipFile(file, "w") as archive:
        archive.comment = _SEAL + b"0" * _DIGEST_CHARACTERS

        def add(member: str, data: bytes, deflate: bool = True) -> None:
            members[member] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
            _add(archive, member, data, deflate)

        for number, library in enumerate(libraries.values()):
            add(_library_member(number), library)
        for name, tensor in tensors.items():
            member = f"tensors/{len(index):04d}"
            if isinstance(tensor, QLinearWeight):
                info, data = to_record(tensor)
                info["kind"] = "qlinear"
                stored_bits, weights = stored_bits + 8 * len(data), weights + tensor.codes.size
            else:
                array = np.asarray(tensor)
                stored = _narrowest(array)
                info = {"kind": "raw", "dtype": array.dtype.str, "stored": stored.str, "shape": list(array.shape)}
                data = array.astype(stored, copy=False).tobytes()
            index[name] = {**info, "member": member}
            add(member, data)  # codes too: trained weights crowd around zero, which saves 9% of 4-bit codes
        if golden:
            add(GOLDEN, _npz(golden), deflate=False)
        manifest = replace(
            manifest,
            weight_bits=stored_bits / weights if weights else None,
            created_by=f"tvm-ahcq {__version__}",
            format_version=_version(manifest),
        )
        text = json.dumps({**manifest.to_dict(), "tensors": index, "members": members}, indent=1)
        _add(archive, MANIFEST, text.encode(), deflate=True)
    return manifest


def _version(manifest: Manifest) -> int:
    """The oldest format that can describe the bundle."""
    if manifest.accelerator is not None:
        return FORMAT_VERSION
    return 2 if manifest.others else 1


def _library_member(number: int) -> str:
    """Member with the library of a target, by its place in the manifest."""
    return LIBRARY if number == 0 else f"library-{number}.so"


def _narrowest(array: np.ndarray) -> np.dtype:
    """Return the array to store: float32 as float16 where that is exact, everything else unchanged."""
    if array.dtype == np.float32:
        with np.errstate(over="ignore"):  # what overflows is not equal
            if array.size and (array.astype(np.float16) == array).all():
                return np.dtype(np.float16)
    return array.dtype


def _add(archive: zipfile.ZipFile, member: str, data: bytes, deflate: bool) -> None:
    """Add a member, deflated where that was asked for and pays; a sample decides before all of it is tried."""
    pays = deflate and len(zlib.compress(data[: 2**18], 6)) < _DEFLATE_PAYS * len(data[: 2**18])
    info = zipfile.ZipInfo(member, _DATE)
    info.external_attr = 0o644 << 16
    archive.writestr(info, data, zipfile.ZIP_DEFLATED if pays else zipfile.ZIP_STORED)


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Deflated ``.npz`` as ``numpy.load`` reads it, without the date that ``numpy.savez`` puts in."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", _DATE), member.getvalue(), zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def _seal(file: IO[bytes]) -> None:
    """Put the digest of all that was written in the place that the zip comment keeps for it."""
    file.flush()
    end = file.seek(0, os.SEEK_END) - _DIGEST_CHARACTERS
    digest = hashlib.sha256()
    file.seek(0)
    while (left := end - file.tell()) > 0:
        digest.update(file.read(min(left, 2**22)))
    file.seek(end)
    file.write(digest.hexdigest().encode())
    file.flush()


# ---- reading


def read_bundle(
    path: str | os.PathLike[str],
    check_cpu: bool = True,
    available: Collection[str] | None = None,
    target: str | None = None,
) -> Bundle:
    """Read a bundle and verify all of it: digests, format version, tensor sizes, CPU features.

    A bundle contains native code: the digests find damage, they do not tell who wrote it.

    Parameters
    ----------
    path : path-like
        A file written by :func:`write_bundle`.
    check_cpu : bool
        False to inspect a bundle that was made for another machine.
    available : collection of str, optional
        CPU features to check against; those of this machine by default.
    target : str, optional
        Name of the target to take; by default the best one that this machine can run (the first one without
        `check_cpu`).

    Raises
    ------
    BundleError
        The file is missing, not a bundle, damaged, of a newer format, or made for another CPU.
    """
    path = Path(path)
    data = _read_file(path)
    _check_magic(path, data)
    if data[-_DIGEST_CHARACTERS:] != hashlib.sha256(data[:-_DIGEST_CHARACTERS]).hexdigest().encode():
        raise BundleError(f"{path}: damaged: {_damage(data)}; copy it again or recompile the model")
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        stored = json.loads(archive.read(MANIFEST))
        _check_version(path, stored)
        manifest = Manifest.from_dict(stored)
        members = {name: archive.read(name) for name in stored["members"]}
        _check_members(manifest, stored, members)
        golden = _read_npz(members[GOLDEN]) if GOLDEN in members else {}
    except BundleError as error:
        raise error if str(error).startswith(str(path)) else BundleError(f"{path}: {error}") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError, NotImplementedError) as error:
        raise BundleError(
            f"{path}: damaged, its contents do not fit together: {error!r}; copy it again or recompile the model"
        ) from error
    chosen = cpu.choose_target(path.name, manifest.targets, target, check_cpu, available)
    libraries = {each.name: members.pop(_library_member(n)) for n, each in enumerate(manifest.targets)}
    return Bundle(path, manifest, chosen, libraries, _Tensors(stored["tensors"], members, chosen.layout), golden)


def _read_file(path: Path) -> bytes:
    if path.is_dir():
        raise BundleError(f"{path}: is a folder; expected an .ahcq file, as written by `tvm-ahcq compile`")
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise BundleError(f"{path}: no such file; write one with `tvm-ahcq compile -o {path}`") from error
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror or error}") from error


def _check_magic(path: Path, data: bytes) -> None:
    if not data.startswith(b"PK\x03\x04"):
        what = "empty" if not data else "not an .ahcq bundle"
        raise BundleError(f"{path}: {what}; expected a file written by `tvm-ahcq compile`")
    if not data[:-_DIGEST_CHARACTERS].endswith(_SEAL):
        raise BundleError(
            f"{path}: truncated, or a zip file that is not an .ahcq bundle ({len(data)} bytes); "
            "copy it again or recompile the model"
        )


def _damage(data: bytes) -> str:
    """Return the name of the damaged member, if it can be found."""
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception:  # any error is an answer here: bytes of unknown damage are being parsed
        return "its table of contents is unreadable"
    try:
        members = json.loads(archive.read(MANIFEST))["members"]
    except Exception:  # as above
        return f"{MANIFEST} is unreadable"
    for name, member in members.items():
        try:
            if hashlib.sha256(archive.read(name)).hexdigest() != member["sha256"]:
                return f"{name} has changed"
        except Exception:  # as above
            return f"{name} is unreadable"
    return "the file has changed since it was written"


def _check_version(path: Path, stored: Mapping[str, Any]) -> None:
    version = stored["format_version"]
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise BundleError(
            f"{path}: has bundle format {version}, this tvm-ahcq {__version__} reads up to "
            f"{FORMAT_VERSION}; upgrade with `pip install -U tvm-ahcq`"
        )


def _check_members(manifest: Manifest, stored: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Digests of the members, and sizes of the tensors."""
    for name, expected in stored["members"].items():
        if hashlib.sha256(members[name]).hexdigest() != expected["sha256"]:
            raise BundleError(f"damaged: {name} has changed; copy it again or recompile the model")
    for name, info in stored["tensors"].items():
        if info["kind"] == "qlinear":
            size = sum(record_sizes(info))
        else:
            size = np.dtype(info["stored"]).itemsize * int(np.prod(info["shape"], dtype=np.int64))
        if size != len(members[info["member"]]):
            raise BundleError(f"tensor {name} has {len(members[info['member']])} bytes, expected {size}")
    for name, function in manifest.functions.items():
        absent = [param for param in function.params if param not in stored["tensors"]]
        if absent:
            raise BundleError(f"function {name} takes parameters that are not in the bundle: {absent[:5]}")
    for number in range(len(manifest.targets)):
        if _library_member(number) not in members:
            raise BundleError(f"{_library_member(number)} is not in the bundle")


def _read_npz(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
