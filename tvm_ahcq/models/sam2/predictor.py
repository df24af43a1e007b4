"""``Sam2ImagePredictor`` with the signatures, defaults and outputs of ``sam2.SAM2ImagePredictor``, in numpy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.image_files import check_image
from tvm_ahcq.models.execution import SessionLike
from tvm_ahcq.models.sam import prompts
from tvm_ahcq.models.sam.predictor import ImageNotSetError

from .driver import with_padding
from .functions import Features, Sam2Functions
from .image import prepare, to_model_frame
from .masks import choose_stable, clean, enlarge, enlarge_above
from .spec import Sam2Spec

_CELLS_A_CALL = 2**15
"""Image-embedding cells times prompts that one decoder call takes: 8 prompts at 64 x 64, about 250 MB inside."""

LOW_RES_LIMIT = 32.0
"""Low-resolution logits are clamped to plus and minus this."""

LABELS = (prompts.PADDING, prompts.BACKGROUND, prompts.FOREGROUND, prompts.TOP_LEFT, prompts.BOTTOM_RIGHT)
"""Labels that points may have."""


@dataclass(frozen=True)
class _Prompt:
    """A prompt as the user gave it: arrays or None; coordinates in pixels of the image, or parts of it.

    Annotations of data sets may reach over the edges a little: they are not refused for that (`inside`).
    """

    point_coords: Any = None
    point_labels: Any = None
    box: Any = None
    mask_input: Any = None
    in_pixels: bool = True
    inside: bool = True


class Sam2ImagePredictor:
    """Encodes images once, then predicts masks for prompts as often as asked.

    Parameters
    ----------
    session : SessionLike
        Executes the model.
    mask_threshold : float
        Logits above it are foreground.
    max_hole_area, max_sprinkle_area : float
        Holes and sprinkles of low-resolution masks up to this area in pixels are filled and removed; 0 leaves them.

    Attributes
    ----------
    session : SessionLike
        As given.
    mask_threshold : float
        As given.
    """

    device = "cpu"

    def __init__(
        self,
        session: SessionLike,
        mask_threshold: float = 0.0,
        max_hole_area: float = 0.0,
        max_sprinkle_area: float = 0.0,
    ) -> None:
        self.session, self.mask_threshold = session, mask_threshold
        self._areas = max_hole_area, max_sprinkle_area
        self._functions = Sam2Functions(session)
        self._features: list[Features] = []
        self._sizes: list[tuple[int, int]] = []
        self._is_batch = False

    @property
    def model(self) -> Sam2Spec:
        """Figures of the model (``image_size``, ...)."""
        return self.session.model

    @property
    def original_size(self) -> tuple[int, int] | None:
        """``(H, W)`` of the image that was set last; None if there is none."""
        return self._sizes[-1] if self._sizes else None

    def set_image(self, image: np.ndarray | Image.Image) -> None:
        """Encode an image, so that masks can be predicted.

        Parameters
        ----------
        image : numpy.ndarray or PIL.Image.Image
            ``(H, W, 3)`` uint8 RGB, or a Pillow image, which is converted to RGB.

        Raises
        ------
        ImageError
            The array is another.
        """
        array = np.array(image.convert("RGB")) if isinstance(image, Image.Image) else check_image(image)
        self.reset_predictor()
        self._encode([array])

    def set_image_batch(self, image_list: Sequence[np.ndarray]) -> None:
        """Encode images, one by one, so that :meth:`predict_batch` can predict masks of each.

        Parameters
        ----------
        image_list : sequence of numpy.ndarray
            ``(H, W, 3)`` uint8 RGB, each of any size.

        Raises
        ------
        ImageError
            It is not a sequence of images, or an array is another.
        """
        if not isinstance(image_list, list | tuple) or not image_list:
            raise ImageError(f"image_list is {_kind(image_list)}; expected a list of images (H, W, 3) uint8")
        images = [check_image(image) for image in image_list]
        self.reset_predictor()
        self._encode(images)
        self._is_batch = True

    def predict(
        self,
        point_coords: Any | None = None,
        point_labels: Any | None = None,
        box: Any | None = None,
        mask_input: Any | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predict masks for one object, or for B objects at once.

        Parameters
        ----------
        point_coords : array-like, optional
            ``(N, 2)`` or ``(B, N, 2)``: x and y in pixels of the image.
        point_labels : array-like, optional
            ``(N,)`` or ``(B, N)``: 1 foreground, 0 background, 2 and 3 corners of a box, -1 ignored.
        box : array-like, optional
            ``(4,)`` or ``(B, 4)``: x0, y0, x1, y1 in pixels of the image.
        mask_input : array-like, optional
            ``(1, 4h, 4w)`` or ``(B, 1, 4h, 4w)``: low-resolution logits of an earlier prediction.
        multimask_output : bool
            Three masks of different extent, best for ambiguous prompts such as a single click; else one.
        return_logits : bool
            Logits in place of booleans.
        normalize_coords : bool
            True for coordinates in pixels of the image, False for coordinates from 0 to 1.

        Returns
        -------
        masks : numpy.ndarray
            ``(C, H, W)`` bool, or float32 logits; C is 3 or 1. ``(B, C, H, W)`` for B > 1 objects.
        scores : numpy.ndarray
            ``(C,)`` or ``(B, C)`` float32: predicted IoU.
        low_res_masks : numpy.ndarray
            ``(C, 4h, 4w)`` or ``(B, C, 4h, 4w)`` float32 logits from -32 to 32.

        Raises
        ------
        PromptError
            No image is set, or a prompt has a wrong shape or label or lies outside the image.
        """
        self._require_image()
        prompt = _Prompt(point_coords, point_labels, box, mask_input, normalize_coords)
        return self._predict(-1, prompt, multimask_output, return_logits)

    def predict_batch(
        self,
        point_coords_batch: Sequence[Any] | None = None,
        point_labels_batch: Sequence[Any] | None = None,
        box_batch: Sequence[Any] | None = None,
        mask_input_batch: Sequence[Any] | None = None,
        multimask_output: bool = True,
        return_logits: bool = False,
        normalize_coords: bool = True,
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Predict masks in each image of :meth:`set_image_batch`; lists of what :meth:`predict` takes and returns.

        Raises
        ------
        PromptError
            No batch of images is set, a list has another length, or a prompt does not fit.
        """
        self._require_image()
        if not self._is_batch:
            raise PromptError("predict_batch needs several images; expected set_image_batch before, or use predict")
        count = len(self._features)
        columns = []
        for name, values in (
            ("point_coords_batch", point_coords_batch),
            ("point_labels_batch", point_labels_batch),
            ("box_batch", box_batch),
            ("mask_input_batch", mask_input_batch),
        ):
            if values is not None and len(values) != count:
                raise PromptError(f"{name} has {len(values)} entries; expected {count}, one for each image")
            columns.append([None] * count if values is None else list(values))
        results = [
            self._predict(i, _Prompt(coords, labels, box, mask, normalize_coords), multimask_output, return_logits)
            for i, (coords, labels, box, mask) in enumerate(zip(*columns, strict=True))
        ]
        masks, scores, low = (list(values) for values in zip(*results, strict=True))
        return masks, scores, low

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
        """
        coords = np.asarray(clicks)[:, None]
        return self._several(_Prompt(coords, np.ones((len(coords), 1)), inside=False), multimask_output)

    def predict_boxes(self, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict one mask for each box ``(B, 4)`` XYXY: ``(B, 1, H, W)`` bool and ``(B, 1)`` float32."""
        return self._several(_Prompt(box=np.asarray(boxes), inside=False), multimask_output=False)

    def get_image_embedding(self) -> np.ndarray:
        """Return the embedding of the current images: ``(images, C, h, w)`` float32.

        Raises
        ------
        PromptError
            No image is set.
        """
        self._require_image()
        return np.concatenate([features.embedding for features in self._features])

    def reset_predictor(self) -> None:
        """Forget the current images."""
        self._features, self._sizes, self._is_batch = [], [], False

    def _encode(self, images: Sequence[np.ndarray]) -> None:
        features = [self._functions.encode(prepare(self.model, image)) for image in images]
        self._features, self._sizes = features, [(image.shape[0], image.shape[1]) for image in images]

    def _require_image(self) -> None:
        if not self._features:
            raise ImageNotSetError("An image must be set with .set_image(...) before mask prediction.")

    def _several(self, prompt: _Prompt, multimask_output: bool) -> tuple[np.ndarray, np.ndarray]:
        self._require_image()
        masks, scores, _ = self._predict(-1, prompt, multimask_output, return_logits=False)
        return (masks[None], scores[None]) if scores.ndim == 1 else (masks, scores)

    def _predict(
        self, index: int, prompt: _Prompt, multimask_output: bool, return_logits: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Decode a prompt on the image of an index, and resize its masks."""
        size = self._sizes[index]
        coords, labels = self._tokens(prompt, size if prompt.in_pixels else (1, 1))
        masks = None if prompt.mask_input is None else _mask_input(prompt.mask_input, 4 * self.model.grid)
        coords, labels, masks = _same_batch(coords, labels, masks)
        low, scores = self._decode(self._features[index], coords, labels, masks, multimask_output)
        cleaned = clean(low, self.mask_threshold, *self._areas) if any(self._areas) else low
        if return_logits:
            result = enlarge(cleaned, size)
        else:
            result = enlarge_above(cleaned, size, self.mask_threshold)
        low = np.clip(low, -LOW_RES_LIMIT, LOW_RES_LIMIT)
        return (result[0], scores[0], low[0]) if len(low) == 1 else (result, scores, low)

    def _tokens(self, prompt: _Prompt, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Return points in the model's frame with their labels: corners of the box, points, and the padding point.

        Without points and boxes there are no tokens at all, as upstream.
        """
        parts: list[tuple[np.ndarray, np.ndarray]] = []
        if prompt.box is not None:
            corners = _boxes(prompt, size)
            parts.append((corners, np.tile([prompts.TOP_LEFT, prompts.BOTTOM_RIGHT], (len(corners), 1))))
        if prompt.point_coords is not None or prompt.point_labels is not None:
            parts.append(_points(prompt, size))
        if not parts:
            return np.zeros((1, 0, 2), np.float32), np.zeros((1, 0), np.float32)
        counts = {len(coords) for coords, _ in parts}
        if len(counts) > 1:
            raise PromptError(
                f"box is for {len(parts[0][0])} objects and point_coords for {len(parts[1][0])}; expected as many"
            )
        coords = np.concatenate([to_model_frame(self.model, coords, size) for coords, _ in parts], axis=1)
        return with_padding(coords, np.concatenate([labels for _, labels in parts], axis=1))

    def _decode(
        self, features: Features, coords: np.ndarray, labels: np.ndarray, masks: np.ndarray | None, multimask: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Decode a bounded number of prompts at a time; keep three masks of each, or the one that is chosen."""
        step = max(1, _CELLS_A_CALL // self.model.grid**2)
        parts = []
        for start in range(0, len(coords), step):
            part = slice(start, start + step)
            decoded = self._functions.decode(
                features, coords[part], labels[part], None if masks is None else masks[part]
            )
            if multimask:
                parts.append((decoded.masks[:, 1:], decoded.iou[:, 1:]))
            else:
                parts.append(choose_stable(self.model, decoded.masks, decoded.iou))
        low, scores = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return low, scores


def _boxes(prompt: _Prompt, size: tuple[int, int]) -> np.ndarray:
    """Return corners ``(B, 2, 2)`` of one box or of several."""
    boxes = prompts.check_boxes(np.atleast_2d(np.asarray(prompt.box)))
    for each in boxes:
        prompts.check_box(each)
    corners = boxes.reshape(-1, 2, 2)
    if prompt.inside:
        prompts.check_inside("box corner", corners.reshape(-1, 2), size)
    return corners


def _points(prompt: _Prompt, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return points ``(B, N, 2)`` of one object or of several, and their labels."""
    batched = prompt.point_coords is not None and np.ndim(prompt.point_coords) == 3
    coords, labels = prompts.check_points(prompt.point_coords, prompt.point_labels, batched, LABELS)
    if prompt.inside:
        used = labels != prompts.PADDING
        prompts.check_inside("point", np.where(used[..., None], coords, 0).reshape(-1, 2), size)
    return (coords, labels) if batched else (coords[None], labels[None])


def _mask_input(mask: Any, side: int) -> np.ndarray:
    batched = np.ndim(mask) == 4
    checked = prompts.check_mask(mask, side, batched)
    return checked if batched else checked[None]


def _same_batch(
    coords: np.ndarray, labels: np.ndarray, masks: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Repeat a single mask for all objects, and empty prompts for all masks."""
    if masks is None or len(masks) == len(coords):
        return coords, labels, masks
    if len(masks) == 1:
        return coords, labels, np.repeat(masks, len(coords), axis=0)
    if coords.shape[1] == 0:
        return np.repeat(coords, len(masks), axis=0), np.repeat(labels, len(masks), axis=0), masks
    raise PromptError(f"mask_input is for {len(masks)} objects, the other prompts for {len(coords)}; expected as many")


def _kind(value: Any) -> str:
    return "empty" if isinstance(value, list | tuple) else f"of type {type(value).__name__}"
