"""The functions of a SAM 2 on any executor: encode an image, decode prompts, remember. numpy in, numpy out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tvm_ahcq.models.execution import SessionLike

PICTURE_FUNCTIONS = ("encode_image", "decode", "decode_mask")
"""Functions that segment pictures."""

MEMORY_FUNCTIONS = ("attend_frame", "attend_memory", "encode_memory", "embed_mask")
"""Functions that tracking in videos needs besides."""


class Features(NamedTuple):
    """An encoded image.

    Attributes
    ----------
    embedding : numpy.ndarray
        ``(1, C, grid, grid)`` float32, of a picture or a frame without memory.
    high_res_0, high_res_1 : numpy.ndarray
        ``(1, C/8, 4 grid, 4 grid)`` and ``(1, C/4, 2 grid, 2 grid)`` float32.
    frame : numpy.ndarray
        ``(1, C, grid, grid)`` float32: the embedding that memory is added to.
    """

    embedding: np.ndarray
    high_res_0: np.ndarray
    high_res_1: np.ndarray
    frame: np.ndarray


class Decoded(NamedTuple):
    """Decoded prompts.

    Attributes
    ----------
    masks : numpy.ndarray
        ``(B, 4, 4 grid, 4 grid)`` float32 logits: one for prompts without ambiguity, then three.
    iou : numpy.ndarray
        ``(B, 4)`` float32, predicted.
    pointers : numpy.ndarray
        ``(B, 4, C)`` float32: what a memory keeps of the object, by mask; a constant where the object is not there.
    score : numpy.ndarray
        ``(B, 1)`` float32 logit: the object is there if it is positive.
    """

    masks: np.ndarray
    iou: np.ndarray
    pointers: np.ndarray
    score: np.ndarray


class Sam2Functions:
    """Calls of the functions of a SAM 2.

    Parameters
    ----------
    session : SessionLike
        Executes the model.
    """

    def __init__(self, session: SessionLike) -> None:
        self.session = session

    def encode(self, image: np.ndarray) -> Features:
        """Encode an image ``(1, 3, S, S)`` float32, resized and normalised; ValueError if its shape is another."""
        return Features(*self.session.run("encode_image", image))

    def decode(
        self,
        features: Features,
        point_coords: np.ndarray,
        point_labels: np.ndarray,
        mask_input: np.ndarray | None = None,
    ) -> Decoded:
        """Decode prompts to masks.

        Parameters
        ----------
        features : Features
            Of an image.
        point_coords : numpy.ndarray
            ``(B, N, 2)`` float32, x and y in pixels of the model input.
        point_labels : numpy.ndarray
            ``(B, N)`` float32: -1 padding, 0 background, 1 foreground, 2 and 3 the corners of a box.
        mask_input : numpy.ndarray, optional
            ``(B, 1, 4 grid, 4 grid)`` float32 logits.

        Returns
        -------
        Decoded

        Raises
        ------
        ValueError
            If a shape is another.
        """
        inputs = (features.embedding, features.high_res_0, features.high_res_1, point_coords, point_labels)
        if mask_input is None:
            return Decoded(*self.session.run("decode", *inputs))
        return Decoded(*self.session.run("decode_mask", *inputs, mask_input))

    def attend_frame(self, features: Features) -> np.ndarray:
        """Return what :meth:`attend_memory` reads of a frame, whatever the object: ``(1, grid**2, C)`` float32."""
        return self.session.run("attend_frame", features.frame)[0]

    def attend_memory(
        self,
        tokens: np.ndarray,
        memories: np.ndarray,
        slots: np.ndarray,
        pointers: np.ndarray,
        distances: np.ndarray,
    ) -> np.ndarray:
        """Return the embedding of a frame that remembers: ``(1, C, grid, grid)`` float32.

        Parameters
        ----------
        tokens : numpy.ndarray
            From :meth:`attend_frame`.
        memories : numpy.ndarray
            ``(M, grid**2, c)``, at least one, as :meth:`encode_memory` returns them.
        slots : numpy.ndarray
            ``(M,)`` int64: 0 for a conditioning frame, 1 for the oldest of the others, ``memories - 1`` for the latest.
        pointers : numpy.ndarray
            ``(P, C)`` float32; may be none.
        distances : numpy.ndarray
            ``(P,)`` float32: frames between a pointer and this frame, over the greatest number that counts.

        Raises
        ------
        ValueError
            If a shape is another.
        """
        return self.session.run("attend_memory", tokens, memories, slots, pointers, distances)[0]

    def encode_memory(self, features: Features, masks: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return memories of B objects on a frame: ``(B, grid**2, c)``, in a type of the executor's own.

        Parameters
        ----------
        features : Features
            Of the frame.
        masks : numpy.ndarray
            ``(B, 1, S, S)`` float32: probabilities, or 0 and 1, times ``memory_scale`` plus ``memory_bias``.
        score : numpy.ndarray
            ``(B, 1)`` float32 logits: an object is there if its score is positive.

        Raises
        ------
        ValueError
            If a shape is another.
        """
        return self.session.run("encode_memory", features.frame, masks, score)[0]

    def embed_mask(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a mask as the decoder takes it, and the pointer of an object that is not there.

        Parameters
        ----------
        mask : numpy.ndarray
            ``(B, 1, S, S)`` float32, 0 or 1.

        Returns
        -------
        mask_input : numpy.ndarray
            ``(B, 1, 4 grid, 4 grid)`` float32.
        absent_pointer : numpy.ndarray
            ``(1, C)`` float32.
        """
        mask_input, pointer = self.session.run("embed_mask", mask)
        return mask_input, pointer
