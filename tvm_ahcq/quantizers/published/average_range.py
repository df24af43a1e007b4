"""The published observation of ranges: minima and maxima of each image, averaged over the images.

See docs/quantizers.md#uniform.
"""

from __future__ import annotations

import numpy as np

from tvm_ahcq.errors import CalibrationError
from tvm_ahcq.quantizers.core.params import check_samples


class AverageRange:
    """Running mean of the minimum and maximum of batches, one batch an image, all with the same weight.

    Parameters
    ----------
    per_channel : bool
        A range for each channel (last axis) instead of one for the tensor.

    Attributes
    ----------
    images : int
        Batches seen.
    """

    def __init__(self, per_channel: bool = False) -> None:
        self._per_channel = per_channel
        self._low = self._high = np.zeros((), np.float64)
        self.images = 0

    def update(self, batch: np.ndarray) -> None:
        """Add one image's values, ``(..., C)`` float32.

        Raises
        ------
        CalibrationError
            If there are none, some are not finite, or the channels are not those of the images before.
        """
        batch = check_samples(batch, "min-max")
        if self._per_channel:
            batch = batch.reshape(-1, batch.shape[-1])
            low, high = batch.min(0), batch.max(0)
        else:
            low, high = batch.min(), batch.max()
        if self.images and np.shape(low) != self._low.shape:
            raise CalibrationError(
                f"An image has {np.size(low)} channels, those before had {self._low.size}; give images of one model."
            )
        self.images += 1
        self._low = self._low + (low - self._low) / self.images
        self._high = self._high + (high - self._high) / self.images

    def reset(self) -> None:
        """Discard all images, as a change of the weights invalidates their ranges."""
        self.__init__(self._per_channel)  # type: ignore[misc]

    @property
    def low(self) -> np.ndarray:
        """Mean of the minima, float32, a scalar or ``(C,)``."""
        return self._mean(self._low)

    @property
    def high(self) -> np.ndarray:
        """Mean of the maxima, float32, a scalar or ``(C,)``."""
        return self._mean(self._high)

    def _mean(self, total: np.ndarray) -> np.ndarray:
        if not self.images:
            raise CalibrationError("A range was asked for before any image was seen; give at least one image.")
        return total.astype(np.float32)
