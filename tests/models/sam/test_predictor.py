"""The predictor against upstream's, on the same weights: a session that runs the upstream modules in torch."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tvm_ahcq.errors import ImageError, PromptError
from tvm_ahcq.models.sam.predictor import SamPredictor
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.models.sam.vit_t import build_sam_vit_t


class TorchSession:
    """Executes upstream's modules behind the interface of a compiled session."""

    def __init__(self, sam):
        size = sam.image_encoder.img_size
        self.sam = sam
        self.model = SamSpec(
            "vit_t",
            size,
            size // 16,
            sam.prompt_encoder.embed_dim,
            sam.mask_threshold,
            tuple(sam.pixel_mean.flatten().tolist()),
            tuple(sam.pixel_std.flatten().tolist()),
        )
        self.batches = []

    def run(self, name, *inputs):
        return (self.encode(*inputs),) if name == "encode_image" else self.decode(*inputs)

    @torch.no_grad()
    def encode(self, image):
        assert image.dtype == np.float32 and image.shape == (1, 3, self.model.image_size, self.model.image_size)
        return self.sam.image_encoder(torch.from_numpy(image)).numpy()

    @torch.no_grad()
    def decode(self, embedding, point_coords, point_labels, mask_input=None):
        """Tokens by their labels alone, as the compiled graph embeds them."""
        self.batches.append(len(point_coords))
        encoder = self.sam.prompt_encoder
        coords, labels = torch.from_numpy(point_coords), torch.from_numpy(point_labels)
        sparse = encoder.pe_layer.forward_with_coords(coords + 0.5, encoder.input_image_size)
        sparse[labels == -1] = encoder.not_a_point_embed.weight
        for label in range(4):
            sparse[labels == label] += encoder.point_embeddings[label].weight
        masks = None if mask_input is None else torch.from_numpy(np.ascontiguousarray(mask_input))
        _, dense = encoder(None, torch.zeros(len(coords), 4) if masks is None else None, masks)
        low, iou = self.sam.mask_decoder.predict_masks(
            torch.from_numpy(embedding), encoder.get_dense_pe(), sparse, dense
        )
        return low.numpy(), iou.numpy()


@pytest.fixture(scope="module")
def sam():
    torch.manual_seed(0)
    sam = build_sam_vit_t(image_size=128, embed_dim=48, depth=2, num_heads=3, global_attn_indexes=(1,), prompt_dim=64)
    for parameter in sam.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return sam


@pytest.fixture(scope="module", params=[(90, 140), (160, 75), (128, 128), (301, 300)], ids=str)
def pair(request, sam):
    """Our predictor and upstream's, with the same image set."""
    from segment_anything import SamPredictor as Upstream

    height, width = request.param
    rng = np.random.default_rng(height)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, 8, 8)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")[0].clamp(0, 255)
    image = smooth.permute(1, 2, 0).numpy().astype(np.uint8)
    ours, theirs = SamPredictor(TorchSession(sam)), Upstream(sam)
    ours.set_image(image)
    theirs.set_image(image)
    return SimpleNamespace(ours=ours, theirs=theirs, image=image, size=(height, width), rng=rng)


def assert_equal(found, expected, logits):
    """Masks, scores and low-resolution logits of both predictors agree."""
    for ours, theirs in zip(found, expected, strict=True):
        theirs = np.asarray(theirs)
        assert isinstance(ours, np.ndarray)
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(found[1], np.asarray(expected[1]), atol=1e-4)
    np.testing.assert_allclose(found[2], np.asarray(expected[2]), atol=1e-4)
    if logits:
        np.testing.assert_allclose(found[0], np.asarray(expected[0]), atol=1e-4)
    else:
        assert (found[0] != np.asarray(expected[0])).mean() < 1e-4


def test_embeddings_and_sizes_agree(pair):
    np.testing.assert_allclose(pair.ours.get_image_embedding(), pair.theirs.get_image_embedding().numpy(), atol=1e-5)
    assert pair.ours.input_size == tuple(pair.theirs.input_size)
    assert pair.ours.original_size == tuple(pair.theirs.original_size) == pair.size
    assert pair.ours.is_image_set and pair.ours.device == str(pair.theirs.device)


def prompts_of(pair):
    height, width = pair.size
    points, labels = pair.rng.uniform(0, (width, height), (3, 2)), np.array([1, 0, 1])
    box = np.array([0.1 * width, 0.2 * height, 0.8 * width, 0.7 * height])
    mask = pair.rng.normal(0, 5, (1, 32, 32)).astype(np.float32)
    one = dict(point_coords=points[:1], point_labels=labels[:1])
    return {
        "one point": one,
        "points": dict(point_coords=points, point_labels=labels),
        "box": dict(box=box),
        "points and box": dict(point_coords=points, point_labels=labels, box=box),
        "mask": dict(mask_input=mask),
        "point and mask": dict(**one, mask_input=mask),
        "box and mask": dict(box=box, mask_input=mask),
        "nothing": {},
        "integers": dict(point_coords=points.astype(int), point_labels=labels, box=box.astype(int)),
    }


@pytest.mark.parametrize("multimask", [True, False])
@pytest.mark.parametrize(
    "kind",
    ["one point", "points", "box", "points and box", "mask", "point and mask", "box and mask", "nothing", "integers"],
)
def test_predict_agrees_with_upstream(pair, kind, multimask):
    given = prompts_of(pair)[kind]
    for logits in (False, True):
        found = pair.ours.predict(**given, multimask_output=multimask, return_logits=logits)
        assert_equal(found, pair.theirs.predict(**given, multimask_output=multimask, return_logits=logits), logits)


def test_defaults_are_upstreams(pair):
    point = np.array([[20, 30]]), np.array([1])
    masks, scores, low = pair.ours.predict(*point)
    assert masks.shape == (3, *pair.size) and masks.dtype == bool and scores.shape == (3,) and low.shape == (3, 32, 32)
    assert_equal((masks, scores, low), pair.theirs.predict(*point), False)


def test_a_second_round_with_the_best_logits_agrees(pair):
    point = dict(point_coords=np.array([[20, 30]]), point_labels=np.array([1]))
    _, scores, low = pair.ours.predict(**point)
    best = int(scores.argmax())
    again = dict(**point, mask_input=low[best : best + 1], multimask_output=False)
    assert_equal(pair.ours.predict(**again), pair.theirs.predict(**again), False)


@pytest.mark.parametrize("multimask", [True, False])
def test_batches_agree_with_upstream(pair, multimask):
    height, width = pair.size
    corners = np.sort(pair.rng.uniform(0, 1, (5, 2, 2)), axis=1).reshape(5, 4) * (width, height, width, height)
    boxes = pair.ours.transform.apply_boxes(corners, pair.size)
    np.testing.assert_allclose(boxes, pair.theirs.transform.apply_boxes(corners, pair.size))
    coords = pair.ours.transform.apply_coords(pair.rng.uniform(0, 1, (5, 2, 2)) * (width, height), pair.size)
    labels = np.array([[1, 1], [1, 0], [1, -1], [0, -1], [0, 1]])
    mask = pair.rng.normal(0, 5, (5, 1, 32, 32))
    for points in ((None, None), (coords, labels)):
        for box in (None, boxes):
            for masks in (None, mask):
                if points[0] is None and box is None and masks is None:
                    continue
                ours = pair.ours.predict_torch(*points, box, masks, multimask_output=multimask, return_logits=True)
                tensors = [
                    None if a is None else torch.as_tensor(a, dtype=torch.float32) for a in (*points, box, masks)
                ]
                assert_equal(ours, pair.theirs.predict_torch(*tensors, multimask, return_logits=True), True)


def test_torch_tensors_and_lists_are_accepted(pair):
    boxes = [[10.0, 10.0, 60.0, 50.0], [5.0, 20.0, 30.0, 70.0]]
    from_list = pair.ours.predict_torch(None, None, boxes)
    from_tensor = pair.ours.predict_torch(None, None, torch.tensor(boxes))
    np.testing.assert_array_equal(from_list[2], from_tensor[2])


def test_large_batches_are_decoded_in_bounded_parts(sam):
    session = TorchSession(sam)
    predictor = SamPredictor(session)
    predictor.set_image(np.zeros((16, 16, 3), np.uint8))
    boxes = np.tile([0.0, 0.0, 100.0, 100.0], (1100, 1))
    boxes[:, 2] -= np.arange(1100) / 20
    masks, scores, low = predictor.predict_torch(None, None, boxes, multimask_output=False)
    assert session.batches == [512, 512, 76]
    assert masks.shape == (1100, 1, 16, 16) and scores.shape == (1100, 1)
    alone = predictor.predict_torch(None, None, boxes[1050:1051], multimask_output=False)
    np.testing.assert_allclose(low[1050], alone[2][0], atol=1e-4)


def test_bgr_images_are_flipped(pair, sam):
    other = SamPredictor(TorchSession(sam))
    other.set_image(pair.image[..., ::-1], image_format="BGR")
    np.testing.assert_array_equal(other.features, pair.ours.features)


def test_a_resized_image_can_be_set_directly(pair, sam):
    other = SamPredictor(TorchSession(sam))
    resized = pair.ours.transform.apply_image(pair.image)
    other.set_torch_image(torch.from_numpy(resized).permute(2, 0, 1)[None], pair.size)
    np.testing.assert_array_equal(other.features, pair.ours.features)
    assert other.original_size == pair.size


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (700, 1), (10_000, 3), (2, 10_000)])
def test_extreme_images_give_masks_of_their_size(sam, size):
    predictor = SamPredictor(TorchSession(sam))
    predictor.set_image(np.full((*size, 3), 200, np.uint8))
    masks, _, _ = predictor.predict(np.array([[size[1] / 2, size[0] / 2]]), np.array([1]))
    assert masks.shape == (3, *size)


def test_reset_forgets_the_image(sam):
    predictor = SamPredictor(TorchSession(sam))
    predictor.set_image(np.zeros((8, 8, 3), np.uint8))
    predictor.reset_image()
    assert not predictor.is_image_set and predictor.features is None and predictor.original_size is None
    for call in (predictor.get_image_embedding, predictor.predict, lambda: predictor.predict_torch(None, None)):
        with pytest.raises(PromptError, match=r"An image must be set with \.set_image\(\.\.\.\)"):
            call()
        with pytest.raises(RuntimeError):  # the class that upstream raises
            call()


def test_a_refused_image_leaves_the_last_one_usable(pair):
    with pytest.raises(ImageError):
        pair.ours.set_image(pair.image[..., 0])
    assert pair.ours.is_image_set


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (dict(point_coords=[[1, 2]]), "point_labels must be supplied if point_coords is supplied"),
        (dict(point_labels=[1]), "without point_coords"),
        (dict(point_coords=[1, 2], point_labels=[1]), r"shape \(2,\), expected \(N, 2\)"),
        (dict(point_coords=[[[1, 2]]], point_labels=[[1]]), r"expected \(N, 2\)"),
        (dict(point_coords=[[1, 2]], point_labels=[1, 0]), r"point_labels has shape \(2,\), expected \(1,\)"),
        (dict(point_coords=[[1, 2]], point_labels=[2]), "label 2 is not known.*goes in as box="),
        (dict(point_coords=[[1, 2]], point_labels=[0.5]), "label 0.5 is not known"),
        (dict(point_coords=[[np.nan, 2]], point_labels=[1]), "NaN"),
        (dict(point_coords="here", point_labels=[1]), "array of numbers"),
        (
            dict(point_coords=[[1, 2], [20, 41]], point_labels=[1, 0]),
            r"point 1 at \(20, 41\) lies outside the image of 60 x 40",
        ),
        (dict(point_coords=[[-1, 2]], point_labels=[1]), "outside"),
        (dict(box=[1, 2, 3]), r"box has shape \(3,\), expected \(4,\)"),
        (dict(box=[[1, 2, 3, 4], [1, 2, 3, 4]]), "predict_torch"),
        (dict(box=[30, 2, 3, 4]), "wrong order"),
        (dict(box=[30, 2, 61, 4]), "box corner 1 .*outside"),
        (dict(box=[np.inf, 2, 61, 4]), "infinity"),
        (dict(mask_input=np.zeros((1, 40, 60))), r"mask_input has shape \(1, 40, 60\), expected \(1, 32, 32\)"),
        (dict(mask_input=np.full((1, 32, 32), np.nan)), "NaN"),
    ],
)
def test_wrong_prompts_are_refused_with_what_was_expected(sam, given, message):
    predictor = SamPredictor(TorchSession(sam))
    predictor.set_image(np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(PromptError, match=message):
        predictor.predict(**given)


def test_points_on_the_edges_and_ignored_points_anywhere_are_accepted(sam):
    predictor = SamPredictor(TorchSession(sam))
    predictor.set_image(np.zeros((40, 60, 3), np.uint8))
    box = np.array([0, 0, 60, 40])
    expected = predictor.predict(np.array([[0, 0], [60, 40], [0, 0]]), np.array([1, 0, -1]), box)
    got = predictor.predict(np.array([[0, 0], [60, 40], [-5, 999]]), np.array([1, 0, -1]), box)
    for found, wanted in zip(got, expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert np.isfinite(got[1]).all() and got[0].shape == (3, 40, 60)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            dict(point_coords=np.zeros((2, 3, 2)), point_labels=np.ones((2, 3)), boxes=np.zeros((3, 4))),
            "different numbers",
        ),
        (dict(point_coords=None, point_labels=None, boxes=np.zeros(4)), r"expected \(B, 4\)"),
        (dict(point_coords=None, point_labels=None, boxes=np.zeros((0, 4))), "batch is empty"),
        (dict(point_coords=np.zeros((3, 2)), point_labels=np.ones(3)), r"expected \(B, N, 2\)"),
    ],
)
def test_wrong_batches_are_refused(sam, given, message):
    predictor = SamPredictor(TorchSession(sam))
    predictor.set_image(np.zeros((40, 60, 3), np.uint8))
    with pytest.raises(PromptError, match=message):
        predictor.predict_torch(**given)


def test_the_model_says_what_upstream_users_read_from_it(sam):
    predictor = SamPredictor(TorchSession(sam))
    assert predictor.model.mask_threshold == sam.mask_threshold and predictor.model.image_format == sam.image_format
