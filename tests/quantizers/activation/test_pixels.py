"""Codes of pictures: the pixels themselves at 8 bits."""

from __future__ import annotations

import numpy as np
import pytest

from tvm_ahcq.quantizers.activation.pixels import observed_range, pixel_quantizer, pixel_range

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Patches ``(R, 3 * 4)`` of pixels ``(R, 3, 4)``, as the predictors normalise them."""
    mean, std = (np.array(x, np.float32)[:, None] for x in (MEAN, STD))
    return ((pixels.astype(np.float32) - mean) / std).reshape(len(pixels), -1)


def test_eight_bit_codes_are_the_pixels_and_their_error_is_one_constant_a_colour():
    pixels = np.stack([np.arange(256)] * 12, 1).reshape(256, 3, 4)
    quantizer = pixel_quantizer(pixel_range(MEAN, STD), 12, 8)
    x = normalised(pixels)
    np.testing.assert_array_equal(quantizer.encode(x), pixels.reshape(256, 12))
    error = (quantizer.fake_quant(x) - x).reshape(256, 3, 4)
    fraction = np.array([round(m) - m for m in MEAN]) / STD
    np.testing.assert_allclose(error, np.broadcast_to(-fraction[:, None], error.shape), atol=2e-6)


def test_padding_is_exactly_zero():
    quantizer = pixel_quantizer(pixel_range(MEAN, STD), 12, 8)
    np.testing.assert_array_equal(quantizer.fake_quant(np.zeros((1, 12), np.float32)), 0)


@pytest.mark.parametrize("bits", [4, 6])
def test_fewer_bits_round_to_the_nearest_level_of_each_colour(bits):
    rng = np.random.default_rng(0)
    x = normalised(rng.integers(0, 256, (50, 3, 4)))
    quantizer = pixel_quantizer(pixel_range(MEAN, STD), 12, bits)
    scale, _ = quantizer.per_channel()
    assert len(quantizer.scales) == 3
    assert (np.abs(quantizer.fake_quant(x) - x) <= 1.01 * scale).all()  # half a level, and the zero point half another


def test_where_the_range_is_not_known_it_is_what_was_seen():
    x = np.array([[-1.0, 0.5, 2.0, 3.0, 0.0, 0.1], [0.2, 1.0, -4.0, 0.0, -0.1, 0.2]], np.float32)
    low, high = observed_range(x, 3)
    np.testing.assert_allclose((low, high), [[-1, -4, -0.1], [1, 3, 0.2]])
    assert pixel_quantizer((low, high), 6, 8).group_of == (0, 0, 1, 1, 2, 2)
