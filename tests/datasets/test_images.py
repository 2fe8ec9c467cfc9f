from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageFile

from vistasks.datasets.images import image_size, read_colour_mask, read_image, read_index_mask

ORIENTATION = 0x0112


def picture(height: int = 6, width: int = 9) -> np.ndarray:
    """Smooth, so that JPEG changes it little; no two corners alike, so that a rotation shows."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([20 * rows + 30, 20 * columns + 20, 10 * (rows + columns) + 10], axis=-1).astype(np.uint8)


def upright(stored: np.ndarray, orientation: int) -> np.ndarray:
    """EXIF 2.3: where row 0 and column 0 of the stored array lie in the upright picture."""
    return {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: stored[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path: Path, orientation: int, suffix: str) -> None:
    path = tmp_path / f"turned.{suffix}"
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options = {"quality": 100, "subsampling": 0} if suffix == "jpg" else {}
    Image.fromarray(picture()).save(path, exif=exif, **options)
    image = read_image(path)
    expected = upright(picture(), orientation)
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).max() <= (6 if suffix == "jpg" else 0)
    assert image_size(path) == image.shape[:2]
    assert image.flags.c_contiguous and image.flags.writeable


def test_nonsense_orientation_is_none(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 42
    Image.fromarray(picture()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), picture())


def test_opencv_agrees_on_exif(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture(32, 48)).save(tmp_path / "a.jpg", exif=exif, quality=95)
    theirs = cv2.imread(str(tmp_path / "a.jpg"), cv2.IMREAD_COLOR)[..., ::-1]
    ours = read_image(tmp_path / "a.jpg")
    assert ours.shape == theirs.shape == (48, 32, 3)
    assert np.abs(ours.astype(int) - theirs).max() <= 12


def test_grey_and_one_bit(tmp_path: Path) -> None:
    grey = picture()[..., 0]
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(grey > 60).save(tmp_path / "bits.png")
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=-1))
    assert np.array_equal(read_image(tmp_path / "bits.png")[..., 1], np.where(grey > 60, 255, 0))


def test_16_bit_grey_and_colour_keep_the_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256], [32768, 65280, 65535]], dtype=np.uint16)
    high = np.array([[0, 0, 1], [128, 255, 255]], dtype=np.uint8)
    colour = np.stack([values, values[::-1], values[:, ::-1]], axis=-1)
    for suffix in ("png", "tif"):
        cv2.imwrite(str(tmp_path / f"grey.{suffix}"), values)
        assert np.array_equal(read_image(tmp_path / f"grey.{suffix}"), np.repeat(high[..., None], 3, axis=-1))
    cv2.imwrite(str(tmp_path / "colour.png"), colour[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "colour.png"), (colour >> 8).astype(np.uint8))


def test_transparency_is_composed_over_white(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.full((6, 9), 255, np.uint8)])
    rgba[0, 0, 3], rgba[0, 1, 3] = 0, 128
    Image.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image[0, 0].tolist() == [255, 255, 255]
    assert np.abs(image[0, 1] - (picture()[0, 1] * (128 / 255) + 255 * (127 / 255))).max() <= 1
    assert np.array_equal(image[1:], picture()[1:])
    Image.fromarray(rgba[..., [0, 3]]).save(tmp_path / "la.png")
    assert read_image(tmp_path / "la.png")[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(read_image(tmp_path / "la.png")[1:, :, 2], picture()[1:, :, 0])


def test_palette_with_and_without_a_transparent_entry(tmp_path: Path) -> None:
    indices = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8))
    indices.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    indices.save(tmp_path / "plain.png")
    indices.save(tmp_path / "hole.png", transparency=1)
    indices.save(tmp_path / "plain.gif")
    colours = [[10, 20, 30], [40, 50, 60], [70, 80, 90]]
    assert read_image(tmp_path / "plain.png").tolist() == [colours]
    assert read_image(tmp_path / "plain.gif").tolist() == [colours]
    assert read_image(tmp_path / "hole.png").tolist() == [[colours[0], [255, 255, 255], colours[2]]]


def test_cmyk_jpeg(tmp_path: Path) -> None:
    flat = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(flat).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    with Image.open(tmp_path / "a.jpg") as saved:
        assert saved.mode == "CMYK"
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - flat).max() <= 3


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, on the way to its error
@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "webp"])
def test_truncated_files_are_named(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut.{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    content = path.read_bytes()
    for length in (1, 20, len(content) // 3, len(content) * 3 // 4):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match=rf"cut\.{suffix}: not a readable image, or a truncated one"):
            read_image(path)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_flipped_bytes_never_end_in_another_error(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"flipped.{suffix}"
    Image.fromarray(picture(24, 24)).save(path)
    content, generator = path.read_bytes(), np.random.default_rng(1)
    for _ in range(150):
        damaged = bytearray(content)
        for place in generator.integers(0, len(content), 3):
            damaged[place] ^= int(generator.integers(1, 256))
        path.write_bytes(bytes(damaged))
        try:
            image = read_image(path)
        except ValueError as error:
            assert str(path) in str(error)
        except (
            UserWarning
        ) as warning:  # Pillow warns of odd EXIF blocks, and the test run makes errors of warnings
            assert "EXIF" in str(warning) or "corrupt" in str(warning).lower()
        else:
            assert image.dtype == np.uint8 and image.shape[2] == 3


def test_empty_other_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "text.jpg").write_text("not a picture")
    with pytest.raises(ValueError, match=r"empty\.jpg: the file is empty \(0 bytes\)"):
        read_image(tmp_path / "empty.jpg")
    for read in (read_image, image_size, read_index_mask, read_colour_mask):
        with pytest.raises(ValueError, match=r"text\.jpg: not a readable image"):
            read(tmp_path / "text.jpg")
        with pytest.raises(FileNotFoundError, match=r"gone\.jpg"):
            read(tmp_path / "gone.jpg")


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp", "gif", "tif", "webp", "ppm"])
def test_the_limit_of_pixels_is_ours_and_counts_before_decoding(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"bomb.{suffix}"
    Image.fromarray(picture(40, 50)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow's own, and lower: it is not asked
    assert read_image(path, max_pixels=2000).shape == (40, 50, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for read in (read_image, image_size):
        with pytest.raises(
            ValueError, match=rf"bomb\.{suffix}: 50x40 pixels .*data\.max_pixels=2000 .*--max-pixels"
        ):
            read(path, max_pixels=1999)


def test_a_few_bytes_that_claim_169_million_pixels(tmp_path: Path) -> None:
    path = tmp_path / "small.jpg"
    Image.new("L", (16, 16)).save(path)
    content = bytearray(path.read_bytes())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = (13_000).to_bytes(2, "big") * 2
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"small\.jpg: 13000x13000 pixels are more than max_pixels, 80,000,000"
    ):
        read_image(path)


def test_a_jpeg_of_a_thousand_passes(tmp_path: Path) -> None:
    path = tmp_path / "slow.jpg"
    Image.fromarray(picture(64, 64)).save(path, progressive=True)
    content = path.read_bytes()
    read_image(path)
    last = content.rindex(b"\xff\xda")
    path.write_bytes(content[:last] + content[last:-2] * 1000 + content[-2:])
    with pytest.raises(ValueError, match=r"slow\.jpg: a JPEG in 10\d\d passes"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, image_size, read_index_mask, read_colour_mask])
def test_postscript_starts_no_program_whatever_its_name(
    tmp_path: Path, read: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(out) (w) file\n%%EOF\n")
    Image.init()
    assert "EPS" in Image.OPEN  # Pillow knows it
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(ValueError, match=r"photo\.jpg: not a readable image"):
        read(path)


@pytest.mark.parametrize("error", [RuntimeError, AttributeError, MemoryError, AssertionError])
def test_whatever_a_decoder_raises_is_damage_of_the_file(
    tmp_path: Path, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(picture()).save(tmp_path / "a.png")

    def load(self: ImageFile.ImageFile) -> None:
        raise error("within the decoder")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(
        ValueError, match=rf"a\.png: not a readable image.*{error.__name__}: within the decoder"
    ):
        read_image(tmp_path / "a.png")


def test_a_mask_of_another_size_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(picture()[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(picture()).save(tmp_path / "rgb.png")
    assert read_index_mask(tmp_path / "grey.png", (6, 9)).shape == (6, 9)
    assert read_colour_mask(tmp_path / "rgb.png", (6, 9)).shape == (6, 9, 3)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    for name, read in (("grey.png", read_index_mask), ("rgb.png", read_colour_mask)):
        with pytest.raises(ValueError, match=rf"{name}: the mask is 9x6 pixels, but its image is 6x9"):
            read(tmp_path / name, (9, 6))


def test_float_and_wide_integer_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2, 2), np.float32)).save(tmp_path / "f.tif")
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "i.tif")
    with pytest.raises(ValueError, match=r"f\.tif: floating-point pixels"):
        read_image(tmp_path / "f.tif")
    with pytest.raises(ValueError, match=r"i\.tif: grey values 0\.\.70000 do not fit into 16 bits"):
        read_image(tmp_path / "i.tif")


def test_index_masks_are_untouched(tmp_path: Path) -> None:
    values = np.array([[0, 1, 2], [20, 254, 255]], dtype=np.uint8)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(values).save(tmp_path / "grey.png", exif=exif)
    palette = Image.fromarray(values)
    palette.putpalette([7] * 768)  # all colours alike: the values alone count
    palette.save(tmp_path / "palette.png", transparency=0)
    for name in ("grey.png", "palette.png"):
        mask = read_index_mask(tmp_path / name)
        assert mask.dtype == np.uint8 and np.array_equal(mask, values)
    cv2.imwrite(str(tmp_path / "wide.png"), np.array([[0, 300, 65535]], dtype=np.uint16))
    assert read_index_mask(tmp_path / "wide.png").tolist() == [[0, 300, 65535]]
    Image.fromarray(values > 1).save(tmp_path / "bits.png")
    assert read_index_mask(tmp_path / "bits.png").tolist() == [[0, 0, 1], [1, 1, 1]]


def test_masks_of_the_wrong_kind(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "rgb.png")
    Image.fromarray(picture()[..., 0]).save(tmp_path / "grey.png")
    Image.fromarray(picture()[..., 0]).save(tmp_path / "lossy.jpg")
    with pytest.raises(ValueError, match=r"rgb\.png: expected a mask .* RGB; .*mask_colours"):
        read_index_mask(tmp_path / "rgb.png")
    with pytest.raises(
        ValueError, match=r"grey\.png: expected a mask painted in RGB colours, but its pixels are L"
    ):
        read_colour_mask(tmp_path / "grey.png")
    for read in (read_index_mask, read_colour_mask):
        with pytest.raises(ValueError, match=r"lossy\.jpg: a JPEG cannot hold a mask"):
            read(tmp_path / "lossy.jpg")


def test_colour_masks_leave_alpha_off(tmp_path: Path) -> None:
    rgba = np.dstack([picture(), np.zeros((6, 9), np.uint8)])
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    Image.fromarray(picture()).save(tmp_path / "rgb.png")
    assert np.array_equal(read_colour_mask(tmp_path / "rgba.png"), picture())
    assert np.array_equal(read_colour_mask(tmp_path / "rgb.png"), picture())
