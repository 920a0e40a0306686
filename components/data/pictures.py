"""One picture of any common kind -> the pixels that the encoder takes. Pillow and NumPy only.

Importing, embedding, searching and serving read pictures here and nowhere else, so that one file is one row of pixels
everywhere. Files come from outside. A picture is judged by its header before its pixels are decoded, and a large JPEG
is decoded at a reduced scale, so that memory stays bounded.
"""

import io
import pathlib
import struct
import threading
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from components.data.beam_path import Place

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # a JPEG with further pictures behind it is one too
BACKGROUND = (255, 255, 255)  # what shows through where a picture is transparent
MAX_PIXELS = 80_000_000  # 240 MB decoded, after a JPEG's own reduction
MAX_FILE_BYTES = 512 * 1024 * 1024
# A progressive JPEG repeats its pixels scan by scan: many scans make a small file that takes minutes to decode. The
# usual script of libjpeg has 10, and a thumbnail in the metadata may add as many.
MAX_JPEG_SCANS = 32

# JPEG's own reduced scales are used while they leave at least so many times the wanted size: what is lost then lies
# far below what the filter takes away.
_DRAFT_MARGIN = 4
_STARTS = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM", b"GIF87a", b"GIF89a", b"II*\0", b"MM\0*")
# Markers of a JPEG (ITU-T T.81, table B.1). Those without a length: stuffing, fill, TEM and the restarts.
_END_OF_IMAGE, _START_OF_SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x00, 0xFF, 0x01, *range(0xD0, 0xD9)})
_OPENING = threading.Lock()
_DAMAGED = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    KeyError,
    IndexError,
    OverflowError,
    TypeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class PictureError(ValueError):
    """The file cannot be used; the message says why, without its name."""


def read_picture(
    source: Place | bytes,
    height: int,
    width: int,
    background: tuple[int, int, int] = BACKGROUND,
    most_pixels: int = MAX_PIXELS,
) -> np.ndarray:
    """Decodes a picture upright, cuts the largest centred part of the wanted proportions, and resizes it.

    Orientation (EXIF) is applied; of a GIF the first frame is taken; grey, palette, 16-bit and CMYK pictures become
    8-bit RGB; transparent ones are laid over `background`. The filter is the served model's, an antialiasing triangle.

    Args:
        source: a file, or its bytes.
        height, width: of the result.
        background: red, green and blue, 0 to 255.
        most_pixels: that are decoded; of a JPEG in one scan those that its reduced scale leaves.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        PictureError: no picture, a damaged one, or one of too many pixels, bytes or scans.
    """
    try:
        data = source if isinstance(source, bytes) else _bytes(source)
        with _opened(data) as opened:
            scans = _scans(data) if opened.format in ("JPEG", "MPO") else 0
            if scans > MAX_JPEG_SCANS:
                raise PictureError(f"a JPEG of {scans} scans; at most {MAX_JPEG_SCANS} are decoded")
            whole_size = opened.size
            margin = _DRAFT_MARGIN * max(height, width)
            opened.draft(None, (margin, margin))  # of other formats than JPEG it changes nothing
            # The coefficients of a JPEG in several scans are all kept, whatever its scale.
            columns, rows = opened.size if scans <= 1 else whole_size
            if columns * rows > most_pixels:
                whole = "x".join(map(str, whole_size))
                raise PictureError(f"{whole} are more than {most_pixels} pixels, which is refused unread")
            picture = _rgb(ImageOps.exif_transpose(opened), background)
            return fit(picture, height, width)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"no picture of a kind that is read ({', '.join(FORMATS)})") from error
    except _DAMAGED as error:
        raise PictureError(f"damaged: {(str(error).splitlines() or [''])[0]}") from error


def is_picture(path: pathlib.Path) -> bool:
    """Whether a file begins as one of the `FORMATS` does; a file that cannot be read is none."""
    try:
        with path.open("rb") as file:
            start = file.read(12)
    except OSError:
        return False
    return start.startswith(_STARTS) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def _opened(data: bytes) -> Image.Image:
    """The picture with its header read. Pillow's own guard counts a JPEG's pixels before their reduction, so that a
    telephone's picture of 200 megapixels would not pass; it is a variable of the whole process, and soon as it was.
    """
    with _OPENING:
        guard, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(io.BytesIO(data), formats=FORMATS)
        finally:
            Image.MAX_IMAGE_PIXELS = guard


def _bytes(path: Place) -> bytes:
    try:
        if not path.is_file():
            raise PictureError("there is no such file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(f"the file is larger than {MAX_FILE_BYTES} bytes")
        return path.read_bytes()
    except OSError as error:
        raise PictureError(f"it cannot be opened: {error.strerror or error}") from error


def _scans(jpeg: bytes) -> int:
    """How many scans the first picture in the file has; a thumbnail in its metadata, further pictures and a video
    behind it do not count.
    """
    place, scans = 2, 0
    while (place := jpeg.find(b"\xff", place)) >= 0 and place + 1 < len(jpeg):
        marker = jpeg[place + 1]
        if marker == _END_OF_IMAGE:
            break
        if marker in _WITHOUT_LENGTH:
            place += 1 if marker == 0xFF else 2
            continue
        scans += marker == _START_OF_SCAN
        place += 2 + int.from_bytes(jpeg[place + 2 : place + 4], "big")
    return scans


def fit(picture: Image.Image, height: int, width: int) -> np.ndarray:
    """The largest centred part of an RGB picture with the wanted proportions, resized: uint8 `[height, width, 3]`."""
    if picture.size == (width, height):
        return np.asarray(picture)
    rows = max(1, min(picture.height, picture.width * height // width))
    columns = max(1, min(picture.width, picture.height * width // height))
    top, left = (picture.height - rows) // 2, (picture.width - columns) // 2
    # Cut first: a `box` of `resize` would let the filter see what lies beyond it.
    cut = picture.crop((left, top, left + columns, top + rows))
    return np.asarray(cut.resize((width, height), Image.Resampling.BILINEAR))


def fit_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """The same for uint8 `[any height, any width, 3]`."""
    return fit(Image.fromarray(pixels), height, width)


def _rgb(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """A picture of any mode -> RGB."""
    if picture.mode.startswith("I"):  # 16 bits a pixel, whatever Pillow calls it
        values = np.asarray(picture)
        picture = Image.fromarray((np.clip(values, 0, 65535) >> 8).astype(np.uint8))
    if picture.mode == "F":
        raise PictureError("its pixels are floating-point numbers, whose range is not known")
    if picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info:
        layered = picture.convert("RGBA")
        below = Image.new("RGBA", layered.size, (*background, 255))
        picture = Image.alpha_composite(below, layered)
    return picture.convert("RGB")
