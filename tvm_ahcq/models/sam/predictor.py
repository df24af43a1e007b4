"""``SamPredictor`` with the signatures, defaults and outputs of ``segment_anything.SamPredictor``, in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.models.execution import SessionLike

from . import prompts
from .functions import SamFunctions
from .image import ResizeLongestSide, check_image, preprocess
from .masks import resize_masks, threshold_masks
from .spec import SamSpec

_CELLS_A_CALL = 2**15
"""Image-embedding cells times prompts that one decoder call takes: 8 prompts at 64 x 64, about 250 MB inside."""


class ImageNotSetError(PromptError, RuntimeError):
    """A prediction was asked for before ``set_image``; a ``RuntimeError`` too, which upstream raises."""


class SamPredictor:
    """Embeds an image once, then predicts masks for prompts as often as asked.

    Parameters
    ----------
    session : SessionLike
        Executes the model.

    Attributes
    ----------
    session : SessionLike
        As given.
    transform : ResizeLongestSide
        Takes images, points and boxes to the model's frame.
    is_image_set : bool
        Whether there is an embedding to predict from.
    original_size, input_size : tuple of int or None
        ``(H, W)`` of the image, and of its resized form without padding.
    features : numpy.ndarray or None
        The embedding, ``(1, C, h, w)`` float32.
    """

    device = "cpu"

    def __init__(self, session: SessionLike) -> None:
        self.session = session
        self._functions = SamFunctions(session)
        self.transform = ResizeLongestSide(session.model.image_size)
        self.features: np.ndarray | None = None
        self.original_size: tuple[int, int] | None = None
        self.input_size: tuple[int, int] | None = None
        self.reset_image()

    @property
    def model(self) -> SamSpec:
        """Figures of the model (``mask_threshold``, ``image_format``, ...)."""
        return self.session.model

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        """Embed an image, so that masks can be predicted.

        Parameters
        ----------
        image : numpy.ndarray
            ``(H, W, 3)`` uint8.
        image_format : str
            Order of its channels, ``"RGB"`` or ``"BGR"``.

        Raises
        ------
        ImageError
            The array or the format is another.
        """
        if image_format not in ("RGB", "BGR"):
            raise ImageError(f"image_format must be in ['RGB', 'BGR'], is {image_format!r}")
        image = check_image(image)
        if image_format != self.model.image_format:
            image = image[..., ::-1]
        resized = self.transform.apply_image(image)
        self.set_torch_image(resized.transpose(2, 0, 1)[None], image.shape[:2])

    def set_torch_image(self, transformed_image: Any, original_image_size: tuple[int, ...]) -> None:
        """Embed an image that has been resized already; the name is upstream's, any array will do.

        Parameters
        ----------
        transformed_image : array-like
            ``(1, 3, H, W)``, RGB in 0..255, resized with ``transform``; its longest side is the model's.
        original_image_size : tuple of int
            ``(H, W)`` of the image before that.

        Raises
        ------
        ImageError
            Another shape.
        """
        image = np.asarray(transformed_image)
        side = self.model.image_size
        if image.ndim != 4 or image.shape[:2] != (1, 3) or max(image.shape[2:]) != side or 0 in image.shape:
            raise ImageError(
                f"set_torch_image takes one RGB image (1, 3, H, W) with long side {side}, got {image.shape}"
            )
        self.reset_image()
        height, width = (int(length) for length in original_image_size)
        features = self._functions.encode(preprocess(image, self.model))
        self.original_size, self.input_size = (height, width), (image.shape[2], image.shape[3])
        self.features, self.is_image_set = features, True

    def predict(
        self,
        point_coords: np.ndarray | None = None,
        point_labels: np.ndarray | None = None,
        box: np.ndarray | None = None,
        mask_input: np.ndarray | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict masks for one object.

        Parameters
        ----------
        point_coords : numpy.ndarray, optional
            ``(N, 2)``: x and y in pixels of the image.
        point_labels : numpy.ndarray, optional
            ``(N,)``: 1 foreground, 0 background.
        box : numpy.ndarray, optional
            ``(4,)``: x0, y0, x1, y1 in pixels of the image.
        mask_input : numpy.ndarray, optional
            ``(1, 4h, 4w)``: low-resolution logits of an earlier prediction.
        multimask_output : bool
            Three masks of different extent, best for ambiguous prompts such as a single click; else one.
        return_logits : bool
            Logits in place of booleans.

        Returns
        -------
        masks : numpy.ndarray
            ``(C, H, W)`` bool, or float32 logits; C is 3 or 1.
        scores : numpy.ndarray
            ``(C,)`` float32: predicted IoU.
        low_res_masks : numpy.ndarray
            ``(C, 4h, 4w)`` float32 logits.

        Raises
        ------
        PromptError
            No image is set, or a prompt has a wrong shape or label or lies outside the image.
        """
        size = self._original_size()
        points = boxes = masks = None
        if point_coords is not None or point_labels is not None:
            coords, labels = prompts.check_points(point_coords, point_labels)
            kept = labels != prompts.PADDING
            prompts.check_inside("point", np.where(kept[:, None], coords, 0), size)
            points = self.transform.apply_coords(coords, size)[None], labels[None]
        if box is not None:
            box = prompts.check_box(box)
            prompts.check_inside("box corner", box.reshape(2, 2), size)
            boxes = self.transform.apply_boxes(box, size)
        if mask_input is not None:
            masks = prompts.check_mask(mask_input, 4 * self.model.grid)[None]
        results = self._predict(points, boxes, masks, multimask_output, return_logits)
        return results[0][0], results[1][0], results[2][0]

    def predict_torch(
        self,
        point_coords: Any | None,
        point_labels: Any | None,
        boxes: Any | None = None,
        mask_input: Any | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict masks for B objects at once; the name is upstream's, any arrays will do.

        Coordinates are in the model's frame: use ``transform.apply_coords`` and ``transform.apply_boxes`` first.

        Parameters
        ----------
        point_coords, point_labels : array-like or None
            ``(B, N, 2)`` and ``(B, N)``; label -1 fills up objects with fewer points.
        boxes : array-like, optional
            ``(B, 4)``.
        mask_input : array-like, optional
            ``(B, 1, 4h, 4w)`` float32 logits.
        multimask_output, return_logits : bool
            As in :meth:`predict`.

        Returns
        -------
        masks, scores, low_res_masks : numpy.ndarray
            ``(B, C, H, W)`` bool or float32, ``(B, C)`` and ``(B, C, 4h, 4w)`` float32.

        Raises
        ------
        PromptError
            No image is set, or a prompt has a wrong shape or label.
        """
        self._original_size()
        points = None
        if point_coords is not None or point_labels is not None:
            points = prompts.check_points(point_coords, point_labels, batched=True)
        if boxes is not None:
            boxes = prompts.check_boxes(boxes)
        if mask_input is not None:
            mask_input = prompts.check_mask(mask_input, 4 * self.model.grid, batched=True)
        return self._predict(points, boxes, mask_input, multimask_output, return_logits)

    def predict_clicks(self, clicks: np.ndarray, multimask_output: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Predict masks for one click an object.

        Parameters
        ----------
        clicks : numpy.ndarray
            ``(B, 2)``: x and y in pixels of the image.
        multimask_output : bool
            Three masks each, or one.

        Returns
        -------
        masks, scores : numpy.ndarray
            ``(B, C, H, W)`` bool and ``(B, C)`` float32.

        Raises
        ------
        PromptError
            No image is set.
        """
        points = self.transform.apply_coords(np.asarray(clicks)[:, None], self._original_size())
        labels = np.ones((len(points), 1), np.float32)
        return self.predict_torch(points, labels, multimask_output=multimask_output)[:2]

    def predict_boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict one mask for each box ``(B, 4)`` XYXY: ``(B, 1, H, W)`` bool and ``(B, 1)`` float32."""
        placed = self.transform.apply_boxes(boxes, self._original_size())
        return self.predict_torch(None, None, placed, multimask_output=False)[:2]

    def get_image_embedding(self) -> np.ndarray:
        """The embedding of the current image: ``(1, C, h, w)`` float32.

        Raises
        ------
        PromptError
            No image is set.
        """
        if self.features is None:
            raise ImageNotSetError("An image must be set with .set_image(...) to generate an embedding.")
        return self.features

    def reset_image(self) -> None:
        """Forget the current image."""
        self.is_image_set = False
        self.features = self.original_size = self.input_size = None

    def _original_size(self) -> tuple[int, int]:
        if self.original_size is None:
            raise ImageNotSetError("An image must be set with .set_image(...) before mask prediction.")
        return self.original_size

    def _input_size(self) -> tuple[int, int]:
        if self.input_size is None:
            raise ImageNotSetError("An image must be set with .set_image(...) before mask prediction.")
        return self.input_size

    def _predict(
        self,
        points: tuple[np.ndarray, np.ndarray] | None,
        boxes: np.ndarray | None,
        masks: np.ndarray | None,
        multimask_output: bool,
        return_logits: bool,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decode checked prompts in the model's frame, a bounded number at a time, and resize the masks."""
        features, input_size, original_size = self.get_image_embedding(), self._input_size(), self._original_size()
        batch = _batch_size(points, boxes, masks)
        coords, labels = prompts.tokens(points, boxes, batch)
        if masks is not None and len(masks) != batch:
            masks = np.repeat(masks, batch, axis=0)
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        step = max(1, _CELLS_A_CALL // self.model.grid**2)
        parts = []
        for start in range(0, batch, step):
            part = slice(start, start + step)
            low, iou = self._functions.decode(
                features, coords[part], labels[part], None if masks is None else masks[part]
            )
            parts.append((low[:, chosen], iou[:, chosen]))
        low, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        side = self.model.image_size
        if return_logits:
            return resize_masks(low, side, input_size, original_size), scores, low
        return threshold_masks(low, side, input_size, original_size, self.model.mask_threshold), scores, low


def _batch_size(
    points: tuple[np.ndarray, np.ndarray] | None, boxes: np.ndarray | None, masks: np.ndarray | None
) -> int:
    """Objects that the prompts describe; a single mask serves all of them.

    Raises
    ------
    PromptError
        The prompts disagree, or there are none in the batch.
    """
    sizes = {}
    if points is not None:
        sizes["points"] = len(points[0])
    if boxes is not None:
        sizes["boxes"] = len(boxes)
    if masks is not None and (len(masks) != 1 or not sizes):
        sizes["mask_input"] = len(masks)
    if len(set(sizes.values())) > 1:
        raise PromptError(
            f"prompts are for different numbers of objects: {sizes}; the first axis is one entry for "
            "each mask to predict"
        )
    batch = next(iter(sizes.values()), 1)
    if batch == 0:
        raise PromptError(f"the batch is empty: {sizes}; expected at least one object")
    return batch
