"""Image and mask files -> arrays: the one place where files become pixels.

`read_image` gives upright 8-bit RGB whatever the file holds:

==========================  =============================================================================
EXIF orientation            applied, so that the array looks as a viewer shows it
grey, 1-bit                 the value in all three channels
16-bit (grey or colour)     the high byte (65535 -> 255), the same for grey and colour
palette                     the palette's colours
transparency                composed over white, as a browser shows it on a page
CMYK, YCbCr, LAB            Pillow's conversion, colour profiles ignored
animations, several pages   the first
==========================  =============================================================================

No other format than `FORMATS` is opened, whatever the file's name: among Pillow's others are some that start
programs (PostScript). No picture of more than ``max_pixels`` is decoded.

Masks are data, not pictures: nothing is rotated, blended or converted, and JPEG masks are refused.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import numpy as np
from PIL import Image

from vistasks.system.limits import MAX_PIXELS

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"}
)

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")  # Pillow's names; MPO is a JPEG to it
_MAX_SCANS = 200  # of a progressive JPEG; encoders write about 10, and each costs a pass over all pixels

Size = tuple[int, int]  # height, width

_ORIENTATION_TAG = 0x0112
# EXIF 2.3, 4.6.4 A, tag Orientation: what makes the stored pixels upright
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LIMIT = threading.Lock()


def read_image(path: str | Path, *, divisor: int = 1, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """(H, W, 3) uint8 RGB, upright. A file that is empty, truncated, too large or no image is a ``ValueError``
    that names it.

    With a ``divisor`` of 2, 4 or 8 a JPEG is decoded at that fraction of its sides, rounded up; other formats
    are not."""
    with _opened(path, max_pixels) as image:
        if divisor > 1:
            image.draft(None, (max(1, image.size[0] // divisor), max(1, image.size[1] // divisor)))
        turn = _UPRIGHT.get(_orientation(image))
        image.load()
        rgb = _to_rgb(image, path)
        return np.array(rgb if turn is None else rgb.transpose(turn))


def image_size(path: str | Path, *, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of the array that `read_image` would give, from the file's header alone."""
    with _opened(path, max_pixels) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def holds_several(path: str | Path) -> bool:
    """Whether the file is an animation or has several pages (of which `read_image` takes the first); False
    where it cannot be read.
    """
    with Path(path).open("rb") as file:
        if file.read(2) not in (b"GI", b"\x89P", b"RI", b"II", b"MM"):  # GIF, PNG, WebP, TIFF
            return False
    try:
        with _opened(path, MAX_PIXELS) as image:
            return bool(getattr(image, "is_animated", False))
    except (ValueError, OSError):
        return False


def read_index_mask(path: str | Path, size: Size | None = None) -> np.ndarray:
    """(H, W) uint8 or int32 values of a palette or grey mask, as stored: palette colours and EXIF play no
    role.

    A colour picture, a JPEG (whose values are not the ones that were written) or a mask of another ``size``
    (height, width) than its image is a ``ValueError``.
    """
    with _opened(path, size) as image:
        _refuse_lossy(image, path)
        if image.mode in ("P", "L"):
            return np.array(image)
        if image.mode == "1":
            return np.array(image).astype(np.uint8)
        if image.mode.startswith("I"):
            return np.array(image).astype(np.int32)
        raise ValueError(
            f"{path}: expected a mask with one value per pixel (palette or grey), but its pixels are {image.mode}; "
            "for masks painted in colours give `mask_colours`"
        )


def read_colour_mask(path: str | Path, size: Size | None = None) -> np.ndarray:
    """(H, W, 3) uint8 RGB of a mask painted in colours (palette masks: the palette's colours); alpha is left
    off. ``size`` as in `read_index_mask`.
    """
    with _opened(path, size) as image:
        _refuse_lossy(image, path)
        if image.mode not in ("RGB", "RGBA", "P", "PA"):
            raise ValueError(
                f"{path}: expected a mask painted in RGB colours, but its pixels are {image.mode}; "
                "for masks of class values give `mask_values` instead of `mask_colours`"
            )
        # by way of RGBA, since a palette with a transparent entry converts to RGB with a warning only
        return np.array(image.convert("RGBA"))[..., :3].copy()


@contextmanager
def _opened(path: str | Path, expected: int | Size | None = MAX_PIXELS) -> Iterator[Image.Image]:
    """The picture, not decoded yet; it has at most ``expected`` pixels, or is of that size."""
    try:
        if Path(path).stat().st_size == 0:
            raise ValueError(f"{path}: the file is empty (0 bytes)")
        with _without_pillows_limit():
            image = Image.open(path, formats=FORMATS)
        large = image.width * image.height > (Image.MAX_IMAGE_PIXELS or np.inf)
        with image, _without_pillows_limit() if large else nullcontext():
            _check_size(image.size[::-1], expected, path)
            _check_scans(image, path)
            yield image
    except (FileNotFoundError, PermissionError):
        raise
    except Exception as error:  # decoders raise a dozen kinds on damage, and all mean the same
        if isinstance(error, ValueError) and str(error).startswith(str(path)):
            raise
        raise ValueError(
            f"{path}: not a readable image, or a truncated one ({type(error).__name__}: {error}); "
            f"formats: {', '.join(FORMATS)}"
        ) from error


@contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Ours may be higher; Pillow's is one number for the whole process, so one thread at a time changes it."""
    with _LIMIT:
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _check_size(size: Size, expected: int | Size | None, path: str | Path) -> None:
    height, width = size
    if isinstance(expected, tuple):
        if size != expected:
            raise ValueError(
                f"{path}: the mask is {width}x{height} pixels, but its image is {expected[1]}x{expected[0]}; "
                "they must have one size (masks are read without EXIF rotation)"
            )
        return
    limit = MAX_PIXELS if expected is None else expected
    if height * width > limit:
        raise ValueError(
            f"{path}: {width}x{height} pixels are more than max_pixels, {limit:,}; scale the image down, or "
            f"raise the limit: data.max_pixels={height * width} in the config, --max-pixels of infer and inspect"
        )


def _check_scans(image: Image.Image, path: str | Path) -> None:
    """A small JPEG may ask for thousands of passes over its pixels."""
    if image.info.get("progressive") and (scans := Path(path).read_bytes().count(b"\xff\xda")) > _MAX_SCANS:
        raise ValueError(
            f"{path}: a JPEG in {scans} passes, made to take long; expected at most {_MAX_SCANS}. "
            "Save it anew if you trust it"
        )


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation 1..8 that is still to be applied; 1 where there is none or where it is
    nonsense.
    """
    if image.format == "TIFF":
        return 1  # Pillow turns these itself when it loads them, and has swapped `size` already
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # asking further would decode the whole image
    value = image.getexif().get(_ORIENTATION_TAG, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _to_rgb(image: Image.Image, path: str | Path) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return Image.fromarray(_high_byte(np.array(image), path)).convert("RGB")
    if image.mode == "F":
        raise ValueError(
            f"{path}: floating-point pixels have no standard range; save the image as 8- or 16-bit"
        )
    if "A" in image.getbands() or "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        layers = image.convert("RGBA")
        white = Image.new("RGBA", layers.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layers).convert("RGB")
    return image.convert("RGB")


def _high_byte(values: np.ndarray, path: str | Path) -> np.ndarray:
    lowest, highest = int(values.min()), int(values.max())
    if lowest < 0 or highest > 65535:
        raise ValueError(
            f"{path}: grey values {lowest}..{highest} do not fit into 16 bits; save the image as 8- or 16-bit"
        )
    return (values.astype(np.int64) >> 8).astype(np.uint8)


def _refuse_lossy(image: Image.Image, path: str | Path) -> None:
    if image.format in ("JPEG", "MPO"):
        raise ValueError(
            f"{path}: a JPEG cannot hold a mask, since compression changes its values; save masks as PNG"
        )
