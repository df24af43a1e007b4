"""The functions of a SAM 2 on any executor: images, prompts, memories. numpy in, numpy out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from tvm_ahcq.models.execution import SessionLike


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
        ``(B, 4, C)`` float32: what a memory keeps of the object, by mask.
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
        """Return the tokens ``(1, hw, C)`` float32 of a frame, once for all objects: self-attention."""
        return self.session.run("attend_frame", features.frame)[0]

    def attend_memory(
        self,
        tokens: np.ndarray,
        memories: np.ndarray,
        slots: np.ndarray,
        pointers: np.ndarray,
        distances: np.ndarray,
    ) -> np.ndarray:
        """Let a frame read memories and object pointers of one object.

        Parameters
        ----------
        tokens : numpy.ndarray
            ``(1, hw, C)`` float32, of :meth:`attend_frame`.
        memories : numpy.ndarray
            ``(M, hw, c)``, M >= 1, as :meth:`encode_memory` returns them.
        slots : numpy.ndarray
            ``(M,)`` int64: 0 for conditioning frames, else 1 (furthest) to ``memories - 1`` (last frame).
        pointers : numpy.ndarray
            ``(P, C)`` float32, P >= 0.
        distances : numpy.ndarray
            ``(P,)`` float32: distance in frames, divided by the greatest one.

        Returns
        -------
        numpy.ndarray
            ``(1, C, h, w)`` float32: the embedding that prompts of the frame are decoded on.

        Raises
        ------
        ValueError
            If a shape is another.
        """
        return self.session.run("attend_memory", tokens, memories, slots, pointers, distances)[0]

    def encode_memory(self, features: Features, masks: np.ndarray, score: np.ndarray) -> np.ndarray:
        """Return the memories ``(B, hw, c)`` of a frame.

        Their dtype is the executor's own: float32, or codes. `masks` is ``(B, 1, S, S)`` float32, scaled as the
        memory encoder reads them; `score` the object score ``(B, 1)`` float32.
        """
        return self.session.run("encode_memory", features.frame, masks, score)[0]

    def embed_mask(self, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return a mask ``(B, 1, S, S)`` of 0.0 and 1.0 as a mask prompt, and the pointer of an absent object.

        They are ``(B, 1, 4h, 4w)`` and ``(1, C)`` float32.
        """
        mask_input, absent_pointer = self.session.run("embed_mask", mask)
        return mask_input, absent_pointer
