"""Pictures in requests: read as importing reads them, before the model sees them. No TensorFlow.

The model's own graph takes PNG and JPEG alone, and knows neither orientation nor transparency; TensorFlow Serving has
nothing but the graph, and stays with that (docs/decisions/0023-images-of-strangers.md).
"""

import contextlib
import io
from collections.abc import Callable

import numpy as np
from PIL import Image

from components.data import pictures

# The input of a signature that is an encoded picture.
IMAGE_BYTES = "image_bytes"
# 64 MiB decoded, with transparency: what one request may take beside its body.
MOST_PIXELS = 16 * 1024 * 1024


def as_encoder_takes(
    images: np.ndarray,
    height: int,
    width: int,
    turn: Callable[[], contextlib.AbstractContextManager[None]] = contextlib.nullcontext,
) -> np.ndarray:
    """Pictures of any kind that is imported -> PNGs of the encoder's size, which the graph decodes bit by bit.

    Args:
        images: [n] object, bytes.
        height, width: of what the encoder takes.
        turn: what to hold while one picture is decoded.

    Returns:
        [n] object, bytes.

    Raises:
        pictures.PictureError: one cannot be read; it says which.
    """
    found = np.empty(len(images), object)
    for place, data in enumerate(images):
        with turn():
            try:
                pixels = pictures.read_picture(data, height, width, most_pixels=MOST_PIXELS)
            except pictures.PictureError as error:
                raise pictures.PictureError(f"Picture {place} cannot be read: {error}.") from error
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG", compress_level=0)
            found[place] = file.getvalue()
    return found
