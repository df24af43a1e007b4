"""The functions of a SAM on any executor: encode an image, decode prompts. numpy in, numpy out."""

from __future__ import annotations

import numpy as np

from tvm_ahcq.models.execution import SessionLike


class SamFunctions:
    """Calls of the functions of a SAM.

    Parameters
    ----------
    session : SessionLike
        Executes the model.
    """

    def __init__(self, session: SessionLike) -> None:
        self.session = session

    def encode(self, image: np.ndarray) -> np.ndarray:
        """Embed an image.

        Parameters
        ----------
        image : numpy.ndarray
            ``(1, 3, S, S)`` float32, normalised and padded.

        Returns
        -------
        numpy.ndarray
            ``(1, C, grid, grid)`` float32.

        Raises
        ------
        ValueError
            If its shape is another.
        """
        (embedding,) = self.session.run("encode_image", image)
        return embedding

    def decode(
        self,
        embedding: np.ndarray,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode prompts to masks.

        Parameters
        ----------
        embedding : numpy.ndarray
            ``(1, C, grid, grid)`` float32.
        point_coords : numpy.ndarray
            ``(B, N, 2)`` float32, x and y in pixels of the model input.
        point_labels : numpy.ndarray
            ``(B, N)`` float32: -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
        mask_input : numpy.ndarray, optional
            ``(B, 1, 4 * grid, 4 * grid)`` float32 logits.

        Returns
        -------
        masks : numpy.ndarray
            ``(B, 4, 4 * grid, 4 * grid)`` float32 logits.
        iou : numpy.ndarray
            ``(B, 4)`` float32.

        Raises
        ------
        ValueError
            If a shape is another.
        """
        inputs = (embedding, point_coords, point_labels)
        if mask_input is None:
            masks, iou = self.session.run("decode", *inputs)
        else:
            masks, iou = self.session.run("decode_mask", *inputs, mask_input)
        return masks, iou
