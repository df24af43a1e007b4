"""Memory layouts: packed codes, fixed-point scales, tables (SPEC 3 and 4)."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.codegen.isa.generated.isa import LIMITS
from tvm_ahcq.errors import DeviceError

INT32_MAX = 2**31 - 1

MAX_SHIFT = 55
"""A longer shift of a scale counts as this one: a product has 55 bits."""


def code_blocks(codes: np.ndarray, dim: int) -> np.ndarray:
    """Return ``(rows, channels)`` uint8 codes in blocks of `dim` channels, ``(blocks, rows, dim)``, padded with 0."""
    rows, channels = codes.shape
    blocks = -(-channels // dim)
    padded = np.zeros((rows, blocks * dim), np.uint8)
    padded[:, :channels] = codes
    return padded.reshape(rows, blocks, dim).swapaxes(0, 1)


def weight_tiles(codes: np.ndarray, dim: int) -> np.ndarray:
    """Return weights ``(outputs, inputs)`` as GEMM reads them: ``(output, input blocks, dim inputs, dim outputs)``."""
    outputs, inputs = (-(-size // dim) for size in codes.shape)
    padded = np.zeros((outputs * dim, inputs * dim), np.uint8)
    padded[: codes.shape[0], : codes.shape[1]] = codes
    return padded.reshape(outputs, dim, inputs, dim).transpose(0, 2, 3, 1)


def pack_codes(codes: np.ndarray) -> bytes:
    """Pack 4-bit codes to bytes, the first of two in the low half."""
    flat = np.ascontiguousarray(codes, np.uint8).reshape(-1, 2)
    return (flat[:, 0] | flat[:, 1] << 4).astype(np.uint8).tobytes()


def unpack_codes(data: bytes) -> np.ndarray:
    """Return the inverse of :func:`pack_codes`, ``(2 n,)`` uint8."""
    packed = np.frombuffer(data, np.uint8)
    return np.stack([packed & 15, packed >> 4], -1).reshape(-1)


def planes(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """High and low halves of 8-bit codes; each is a GEMM of its own with its own decode table (SPEC 3.4)."""
    return codes >> 4, codes & 15


def fixed_scale(multiplier: np.ndarray, fraction_bits: int) -> np.ndarray:
    """Return multipliers of either sign in the format of ``vec``: mantissa in bits 21:0, shift in bits 27:22.

    The result of a scale is in units of ``2**-fraction_bits``: ``multiplier * 2**fraction_bits = mantissa / 2**shift``
    with a mantissa of 21 bits and sign; relative error at most ``2**-21``, unless a shift of 55 is not enough.

    Raises
    ------
    DeviceError
        If a multiplier is too large for the fraction.
    """
    value = np.asarray(multiplier, np.float64) * 2.0**fraction_bits
    largest = LIMITS["mantissa_bits"] - 1
    exponent = np.frexp(value)[1]
    shift = np.clip(largest - exponent, 0, MAX_SHIFT)
    mantissa = np.rint(np.ldexp(value, shift)).astype(np.int64)
    over = np.abs(mantissa) >= 1 << largest  # rounding up reached the next power of two
    shift = np.where(over & (shift > 0), shift - 1, shift)
    mantissa = np.rint(np.ldexp(value, shift)).astype(np.int64)
    if (np.abs(mantissa) >= 1 << largest).any():
        raise DeviceError(f"Multiplier {np.abs(multiplier).max():g} is too large for {fraction_bits} fraction bits.")
    return (
        (mantissa & ((1 << LIMITS["mantissa_bits"]) - 1)) | shift.astype(np.int64) << LIMITS["mantissa_bits"]
    ).astype(np.int32)


def decode_table(values: np.ndarray) -> np.ndarray:
    """Return the 16 int32 entries of a decode table from at most 16 operands.

    Raises
    ------
    DeviceError
        If an operand leaves ``-256 .. 255``.
    """
    entries = np.zeros(16, np.int32)
    entries[: len(values)] = values
    if (np.abs(entries * 2 + 1) > 511).any():
        raise DeviceError(f"Operands must lie in -256 .. 255; these span {entries.min()} .. {entries.max()}.")
    return entries


def fixed_thresholds(thresholds: np.ndarray, fraction_bits: int) -> np.ndarray:
    """Return thresholds in units of ``2**-fraction_bits``, which the same numbers exceed as the real ones."""
    exact = np.floor(np.asarray(thresholds, np.float64) * 2.0**fraction_bits)
    return np.clip(exact, -(2**31), INT32_MAX).astype(np.int32)


def encode_table(thresholds: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Return the 64 int32 entries of the interval encoder: code ``codes[number of thresholds that x exceeds]``.

    Parameters
    ----------
    thresholds : numpy.ndarray
        ``(n,)`` int32, ascending, n <= 31.
    codes : numpy.ndarray
        ``(n + 1,)``, 0 .. 15.

    Raises
    ------
    DeviceError
        If there are too many intervals.
    """
    count = len(thresholds)
    if count > LIMITS["thresholds"] or len(codes) != count + 1:
        raise DeviceError(f"{count} thresholds and {len(codes)} codes; expected n <= 31 thresholds and n + 1 codes.")
    entries = np.zeros(64, np.int32)
    entries[:32] = INT32_MAX
    entries[:count] = thresholds
    entries[32 : 33 + count] = codes
    return entries
