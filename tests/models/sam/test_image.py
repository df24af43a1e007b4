"""Reading image files of every kind, and resizing as upstream does."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tvm_ahcq.errors import ImageError
from tvm_ahcq.image_files import check_image, load_image
from tvm_ahcq.models.sam.image import ResizeLongestSide, preprocess
from tvm_ahcq.models.sam.spec import SamSpec
from tvm_ahcq.models.torchvision_compat import ensure_torchvision

ensure_torchvision()

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def assert_reads(path, expected):
    found = load_image(path)
    assert found.dtype == np.uint8 and found.flags.writeable
    np.testing.assert_array_equal(found, expected)


def as_rgb(grey):
    return np.repeat(grey[..., None], 3, axis=2)


def test_colour_and_grey_files_become_rgb(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "rgb.png")
    assert_reads(tmp_path / "rgb.png", RGB)
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    assert_reads(tmp_path / "grey.png", as_rgb(GREY))
    Image.fromarray(GREY > 127).save(tmp_path / "black.png")
    assert_reads(tmp_path / "black.png", as_rgb(np.where(GREY > 127, 255, 0)))


def test_transparency_is_dropped(tmp_path):
    alpha = GREY[::-1, ::-1]
    Image.fromarray(np.dstack([RGB, alpha])).save(tmp_path / "rgba.png")
    assert_reads(tmp_path / "rgba.png", RGB)
    Image.fromarray(np.dstack([GREY, alpha]), "LA").save(tmp_path / "la.png")
    assert_reads(tmp_path / "la.png", as_rgb(GREY))


@pytest.mark.filterwarnings("error")
def test_palettes_are_resolved_with_and_without_transparency(tmp_path):
    picture = Image.new("P", (2, 1))
    picture.putpalette([10, 20, 30, 200, 100, 50])
    picture.putdata([0, 1])
    picture.save(tmp_path / "p.png")
    picture.save(tmp_path / "pt.png", transparency=b"\x00\x80")
    for name in ("p.png", "pt.png"):
        assert_reads(tmp_path / name, [[[10, 20, 30], [200, 100, 50]]])


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    wide = GREY.astype(np.uint16) * 257
    for name in ("wide.png", "wide.tif"):
        Image.fromarray(wide).save(tmp_path / name)
        assert_reads(tmp_path / name, as_rgb(GREY))
    Image.fromarray(np.array([[0, 128, 129, 385, 386, 65535]], np.uint16)).save(tmp_path / "round.png")
    assert load_image(tmp_path / "round.png")[0, :, 0].tolist() == [0, 0, 1, 1, 2, 255]


def test_cmyk_becomes_rgb(tmp_path):
    cmyk = Image.fromarray(RGB).convert("CMYK")
    cmyk.save(tmp_path / "cmyk.tif")
    assert_reads(tmp_path / "cmyk.tif", RGB)
    cmyk.save(tmp_path / "cmyk.jpg", quality=100)
    assert load_image(tmp_path / "cmyk.jpg").shape == RGB.shape


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_exif_orientation_is_applied(tmp_path, orientation):
    # how the stored pixels come from the upright ones, by EXIF 2.3, table 6
    store = {
        1: lambda a: a,
        2: np.fliplr,
        3: lambda a: np.rot90(a, 2),
        4: np.flipud,
        5: lambda a: a.swapaxes(0, 1),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: np.rot90(a, 2).swapaxes(0, 1),
        8: lambda a: np.rot90(a, 3),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(store[orientation](RGB))).save(tmp_path / "turned.png", exif=exif)
    assert_reads(tmp_path / "turned.png", RGB)


def test_the_first_frame_of_an_animation_is_taken(tmp_path):
    frames = [Image.fromarray(as_rgb(GREY)), Image.fromarray(as_rgb(255 - GREY))]
    frames[0].save(tmp_path / "film.tif", save_all=True, append_images=frames[1:])
    assert_reads(tmp_path / "film.tif", as_rgb(GREY))


@pytest.mark.filterwarnings("error")
def test_a_photograph_of_ten_thousand_pixels_a_side_is_read_without_a_warning(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    assert load_image(tmp_path / "large.png").shape == (10_000, 10_000, 3)


def test_a_decompression_bomb_is_refused(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    with pytest.raises(ImageError, match="too many pixels"):
        load_image(tmp_path / "bomb.png")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "no such file"), (b"", "not an image"), (b"hello", "not an image"), ("cut", "cannot be read")],
)
def test_unreadable_files_are_refused_by_name(tmp_path, content, message):
    path = tmp_path / "x.png"
    if content == "cut":
        Image.fromarray(RGB.repeat(50, axis=0)).save(path)
        content = path.read_bytes()[:-200]
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ImageError, match=rf"x\.png: {message}"):
        load_image(path)


def test_a_folder_is_refused(tmp_path):
    with pytest.raises(ImageError, match="cannot be read"):
        load_image(tmp_path)


def test_floating_point_and_32_bit_files_are_refused(tmp_path):
    Image.fromarray(RGB[..., 0].astype(np.float32)).save(tmp_path / "f.tif")
    with pytest.raises(ImageError, match="floating-point"):
        load_image(tmp_path / "f.tif")
    Image.fromarray(np.array([[0, 1_000_000]], np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(ImageError, match=r"grey values 0\.\.1000000"):
        load_image(tmp_path / "i.tif")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[1, 2]], "got list; use"),
        (Image.fromarray(RGB), "got Image; use.*numpy.asarray"),
        (GREY, r"the grey image uint8\(6, 9\)"),
        (GREY[..., None], "repeat its channel"),
        (np.dstack([RGB, GREY]), r"drop its alpha"),
        (RGB / 255, r"expected uint8 values in 0..255, got float64"),
        (RGB[None], r"got uint8\(1, 6, 9, 3\)"),
        (RGB[:0], "no pixels"),
        (RGB.transpose(2, 0, 1), r"uint8\(3, 6, 9\)"),
    ],
)
def test_other_arrays_are_refused_with_what_to_do(image, message):
    with pytest.raises(ImageError, match=message):
        check_image(image)


@given(st.integers(1, 400), st.integers(1, 400), st.sampled_from([64, 256, 1024]))
@settings(max_examples=200, deadline=None)
def test_sizes_are_upstreams(height, width, side):
    from segment_anything.utils.transforms import ResizeLongestSide as Upstream

    expected = Upstream.get_preprocess_shape(height, width, side)
    assert ResizeLongestSide.get_preprocess_shape(height, width, side) == tuple(max(1, n) for n in expected)


@pytest.mark.parametrize("size", [(37, 53), (300, 200), (64, 64), (64, 20), (1, 1), (700, 31)])
def test_resized_images_and_coordinates_equal_upstreams(size):
    from segment_anything.utils.transforms import ResizeLongestSide as Upstream

    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    ours, theirs = ResizeLongestSide(64), Upstream(64)
    for view in (image, image[..., ::-1], image[::-1]):
        resized = ours.apply_image(view)
        np.testing.assert_array_equal(resized, theirs.apply_image(np.ascontiguousarray(view)))
        assert not np.shares_memory(resized, image)
    coords, boxes = rng.uniform(0, 64, (2, 5, 2)), rng.integers(0, 64, (3, 4))
    np.testing.assert_array_equal(ours.apply_coords(coords, size), theirs.apply_coords(coords, size))
    np.testing.assert_array_equal(ours.apply_boxes(boxes, size), theirs.apply_boxes(boxes, size))


def test_an_image_too_thin_for_upstream_keeps_one_pixel():
    assert ResizeLongestSide(1024).apply_image(np.zeros((10_000, 2, 3), np.uint8)).shape == (1024, 1, 3)


def test_padding_comes_after_normalising():
    model = SamSpec("m", 8, 1, 8, 0.0, (100.0, 50.0, 0.0), (10.0, 5.0, 2.0))
    out = preprocess(np.full((1, 3, 8, 5), 100, np.uint8), model)
    assert out.shape == (1, 3, 8, 8) and out.dtype == np.float32
    np.testing.assert_array_equal(out[0, :, 0, 0], [0, 10, 50])
    np.testing.assert_array_equal(out[..., 5:], 0)
