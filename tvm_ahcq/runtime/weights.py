"""Quantized weights of a linear operator: as stored (bit-packed codes) and as the kernels read them (int8 operands)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvm_ahcq.errors import BundleError

CODE_BITS = (4, 5, 6, 8)
"""Widths of a weight code that a bundle can hold."""

LAYOUTS = ("vnni16", "rows")
"""Layouts of the packed operand; see :func:`pack`."""


@dataclass(frozen=True, eq=False)
class QLinearWeight:
    """Weight of a quantized linear operator, with the input groups of its activation.

    Attributes
    ----------
    codes : numpy.ndarray
        ``(N, K)`` uint8, below ``2**bits``; columns in the order of the float weight.
    bits : int
        Bits of a code.
    scale, zero_point : numpy.ndarray
        ``(N,)`` float32 and uint8: ``weight = scale * (code - zero_point)``.
    index : numpy.ndarray
        ``(Kp,)`` int32: source column of each padded, group-ordered channel; -1 is padding.
    group_sizes : tuple of int
        Channels of each group, padding included; multiples of 4 that sum to ``Kp``.
    group_scale, group_zero_point : numpy.ndarray
        ``(G,)`` float32 and int32: scale and zero point of the activation; zero point 0 for table operands.
    layout : str
        One of ``LAYOUTS``.
    """

    codes: np.ndarray
    bits: int
    scale: np.ndarray
    zero_point: np.ndarray
    index: np.ndarray
    group_sizes: tuple[int, ...]
    group_scale: np.ndarray
    group_zero_point: np.ndarray
    layout: str = "vnni16"

    def __post_init__(self) -> None:
        rows, columns = self.codes.shape
        groups, padded = len(self.group_sizes), sum(self.group_sizes)
        expected = {
            "codes": ((rows, columns), np.uint8),
            "scale": ((rows,), np.float32),
            "zero_point": ((rows,), np.uint8),
            "index": ((padded,), np.int32),
            "group_scale": ((groups,), np.float32),
            "group_zero_point": ((groups,), np.int32),
        }
        for name, (shape, dtype) in expected.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != dtype:
                raise ValueError(f"{name} is {array.dtype}{array.shape}, expected {np.dtype(dtype)}{shape}")
        if self.bits not in CODE_BITS or self.layout not in LAYOUTS:
            raise ValueError(f"bits {self.bits}, layout {self.layout!r}; expected one of {CODE_BITS}, {LAYOUTS}")
        if any(size <= 0 or size % 4 for size in self.group_sizes):
            raise ValueError(f"group sizes {self.group_sizes} are not positive multiples of 4")
        top = 2**self.bits
        if self.bits < 8 and max(self.codes.max(initial=0), self.zero_point.max(initial=0)) >= top:
            raise ValueError(f"a code or zero point does not fit {self.bits} bits")
        if self.bits == 8 and (self.zero_point != 128).any():
            raise ValueError("8-bit weights need zero point 128, so that code - zero_point fits int8")
        if padded and not -1 <= self.index.min() <= self.index.max() < columns:
            raise ValueError(f"index runs over {self.index.min()}..{self.index.max()}, expected -1..{columns - 1}")


def centred(weight: QLinearWeight) -> np.ndarray:
    """Return the ``(N, Kp)`` int8 operands ``code - zero_point``, channels gathered by ``index`` (0 where -1)."""
    operands = (weight.codes - weight.zero_point[:, None]).view(np.int8)  # wraps modulo 256: exact, it fits int8
    if not _is_identity(weight.index, operands.shape[1]):
        operands = np.take(operands, np.maximum(weight.index, 0), axis=1)
        operands[:, weight.index < 0] = 0
    return operands


def expand(weight: QLinearWeight) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tensors that a kernel takes in place of a stored weight.

    Returns
    -------
    packed : numpy.ndarray
        int8 operands ``code - zero_point``, channels gathered by ``index`` (0 where -1), in ``weight.layout``.
    multiplier : numpy.ndarray
        ``(G, N)`` float32: ``group_scale[g] * scale[o]``, the float32 product.
    correction : numpy.ndarray
        ``(G, N)`` int32: ``-group_zero_point[g] * sum over c in group g of operand[o, c]``.
    """
    operands = centred(weight)
    multiplier = weight.group_scale[:, None] * weight.scale[None, :]
    correction = np.zeros(multiplier.shape, np.int32)
    start = 0
    for group, (size, zero) in enumerate(zip(weight.group_sizes, weight.group_zero_point, strict=True)):
        if zero:
            correction[group] = -zero * operands[:, start : start + size].sum(axis=1, dtype=np.int32)
        start += size
    return pack(operands, weight.layout), multiplier, correction


def pack(operands: np.ndarray, layout: str) -> np.ndarray:
    """Arrange ``(N, Kp)`` int8 operands for the kernels.

    ``"vnni16"``: ``(ceil(N / 16), Kp / 4, 16, 4)``, rows padded with 0: what a VNNI instruction or an AMX tile row
    reads.
    ``"rows"``: unchanged.
    """
    if layout == "rows":
        return np.ascontiguousarray(operands)
    if layout != "vnni16":
        raise ValueError(f"unknown layout {layout!r}; expected one of {LAYOUTS}")
    rows, columns = operands.shape
    blocks = -(-rows // 16)
    if rows != blocks * 16:
        operands = np.concatenate([operands, np.zeros((blocks * 16 - rows, columns), np.int8)])
    # four int8 channels move as one int32
    quads = np.ascontiguousarray(operands).view(np.int32).reshape(blocks, 16, columns // 4)
    return np.ascontiguousarray(quads.transpose(0, 2, 1)).view(np.int8).reshape(blocks, columns // 4, 16, 4)


def unpack(packed: np.ndarray, layout: str, rows: int) -> np.ndarray:
    """Inverse of :func:`pack`: the ``(rows, Kp)`` int8 operands, without the rows that pad the last block."""
    if layout == "rows":
        return packed[:rows]
    if layout != "vnni16":
        raise ValueError(f"unknown layout {layout!r}; expected one of {LAYOUTS}")
    blocks, quads = packed.shape[:2]
    return np.ascontiguousarray(packed.transpose(0, 2, 1, 3)).reshape(blocks * 16, quads * 4)[:rows]


def pack_codes(codes: np.ndarray, bits: int) -> bytes:
    """Bit-pack codes, flattened in C order: code ``i`` takes bits ``i * bits ...`` of one little-endian bit string."""
    flat = np.ascontiguousarray(codes, np.uint8).ravel()
    if bits == 8:
        return flat.tobytes()
    padded = np.zeros(-(-flat.size // 8) * 8, np.uint8)
    padded[: flat.size] = flat
    words: np.ndarray
    if bits == 4:
        words = padded[0::2] | (padded[1::2] << 4)
    else:
        groups = padded.reshape(-1, 8)
        joined = np.zeros(len(groups), "<u8")
        for lane in range(8):
            joined |= groups[:, lane].astype("<u8") << np.uint64(bits * lane)
        words = joined.view(np.uint8).reshape(-1, 8)[:, :bits]
    return words.tobytes()[: packed_size(flat.size, bits)]


def unpack_codes(data: bytes, count: int, bits: int) -> np.ndarray:
    """Inverse of :func:`pack_codes`: the first `count` codes as uint8."""
    stored = np.frombuffer(data, np.uint8)
    if bits == 8:
        return stored[:count].copy()
    if bits == 4:
        codes = np.empty((stored.size, 2), np.uint8)
        np.bitwise_and(stored, 15, out=codes[:, 0])
        np.right_shift(stored, 4, out=codes[:, 1])
        return codes.ravel()[:count]
    groups = -(-count // 8)
    words = np.zeros((groups, 8), np.uint8)
    padded = np.zeros(groups * bits, np.uint8)
    padded[: stored.size] = stored
    words[:, :bits] = padded.reshape(groups, bits)
    joined, mask = words.view("<u8").ravel(), np.uint64(2**bits - 1)
    codes = np.empty((groups, 8), np.uint8)
    for lane in range(8):
        codes[:, lane] = (joined >> np.uint64(bits * lane)) & mask
    return codes.ravel()[:count]


def packed_size(count: int, bits: int) -> int:
    """Bytes that `count` codes take."""
    return -(-count * bits // 8)


def to_record(weight: QLinearWeight) -> tuple[dict[str, Any], bytes]:
    """Storage form: a JSON-able description, and one byte string that holds every array."""
    rows, columns = weight.codes.shape
    if _is_identity(weight.index, columns):
        index_type, index = None, b""
    else:
        index_type = "<u2" if columns < 2**16 - 1 else "<u4"
        index = weight.index.astype(index_type).tobytes()  # -1 wraps to the largest value
    info = {
        "bits": weight.bits,
        "shape": [rows, columns],
        "group_sizes": list(weight.group_sizes),
        "index": index_type,
        "layout": weight.layout,
    }
    data = b"".join(
        [
            pack_codes(weight.codes, weight.bits),
            pack_codes(weight.zero_point, weight.bits),
            weight.scale.astype("<f4").tobytes(),
            index,
            weight.group_scale.astype("<f4").tobytes(),
            weight.group_zero_point.astype("<i4").tobytes(),
        ]
    )
    return info, data


def record_sizes(info: Mapping[str, Any]) -> list[int]:
    """Bytes of each array in a record, in the order written by :func:`to_record`."""
    (rows, columns), bits, groups = info["shape"], info["bits"], info["group_sizes"]
    index = sum(groups) * np.dtype(info["index"]).itemsize if info["index"] else 0
    return [
        packed_size(rows * columns, bits),
        packed_size(rows, bits),
        4 * rows,
        index,
        4 * len(groups),
        4 * len(groups),
    ]


def from_record(info: Mapping[str, Any], data: bytes) -> QLinearWeight:
    """Inverse of :func:`to_record`.

    Raises
    ------
    BundleError
        The bytes do not fit the description.
    """
    sizes = record_sizes(info)
    if sum(sizes) != len(data):
        raise BundleError(f"a weight record has {len(data)} bytes, its description asks for {sum(sizes)}")
    ends = np.cumsum(sizes)
    codes, zero, scale, index, group_scale, group_zero = (
        data[end - size : end] for end, size in zip(ends, sizes, strict=True)
    )
    (rows, columns), bits = info["shape"], info["bits"]
    if info["index"]:
        stored = np.frombuffer(index, info["index"])
        order = np.where(stored == np.iinfo(stored.dtype).max, -1, stored.astype(np.int64)).astype(np.int32)
    else:
        order = np.arange(columns, dtype=np.int32)
    try:
        return QLinearWeight(
            unpack_codes(codes, rows * columns, bits).reshape(rows, columns),
            bits,
            np.frombuffer(scale, "<f4"),
            unpack_codes(zero, rows, bits),
            order,
            tuple(info["group_sizes"]),
            np.frombuffer(group_scale, "<f4"),
            np.frombuffer(group_zero, "<i4"),
            info["layout"],
        )
    except ValueError as error:
        raise BundleError(f"a weight record does not make sense: {error}") from error


def _is_identity(index: np.ndarray, columns: int) -> bool:
    """Return True if the channels need no padding or reordering."""
    return len(index) == columns and bool((index == np.arange(columns)).all())
