"""One picture file of any common kind -> the pixels that the encoder takes. Pillow and NumPy only.

Files come from outside. A picture is judged by its header before its pixels are decoded, and a large JPEG is decoded at
a reduced scale, so that memory stays bounded.
"""

import pathlib
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")  # a JPEG with further pictures behind it is one too
BACKGROUND = (255, 255, 255)  # what shows through where a picture is transparent
MAX_PIXELS = 80_000_000  # 240 MB decoded; above any common camera
MAX_FILE_BYTES = 512 * 1024 * 1024

# JPEG's own reduced scales are used while they leave at least so many times the wanted size: what is lost then lies
# far below what the filter takes away.
_DRAFT_MARGIN = 4
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
    path: pathlib.Path, height: int, width: int, background: tuple[int, int, int] = BACKGROUND
) -> np.ndarray:
    """Decodes a file upright, cuts the largest centred part of the wanted proportions, and resizes it.

    Orientation (EXIF) is applied; of a GIF the first frame is taken; grey, palette, 16-bit and CMYK pictures become
    8-bit RGB; transparent ones are laid over `background`. The filter is the served model's, an antialiasing triangle.

    Returns:
        uint8 `[height, width, 3]`.

    Raises:
        PictureError: no picture, a damaged one, or one of too many pixels.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise PictureError(f"the file is larger than {MAX_FILE_BYTES} bytes")
        with Image.open(path, formats=FORMATS) as opened:
            if opened.width * opened.height > MAX_PIXELS:
                raise PictureError(
                    f"{opened.width}x{opened.height} are more than {MAX_PIXELS} pixels, which is refused unread"
                )
            margin = _DRAFT_MARGIN * max(height, width)
            opened.draft(None, (margin, margin))  # of other formats than JPEG it changes nothing
            picture = _rgb(ImageOps.exif_transpose(opened), background)
            return fit(picture, height, width)
    except PictureError:
        raise
    except UnidentifiedImageError as error:
        raise PictureError(f"no picture of a kind that is read ({', '.join(FORMATS)})") from error
    except _DAMAGED as error:
        raise PictureError(f"damaged: {(str(error).splitlines() or [''])[0]}") from error


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
