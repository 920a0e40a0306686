"""Many small pictures as one image inside the page."""

import base64
import dataclasses
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

TILE = 32
COLUMNS = 32
_QUALITY = 85


@dataclasses.dataclass(frozen=True)
class Sprite:
    """Pictures side by side in one JPEG.

    Attributes:
        data_uri: of the JPEG.
        columns: pictures in a line.
        places: for each name the column and line of its picture.
    """

    data_uri: str
    columns: int
    places: dict[str, tuple[int, int]]


def sprite(pictures: dict[str, np.ndarray]) -> Sprite:
    """Puts uint8 [32, 32, 3] pictures into one JPEG of 4:4:4 colours, whose 8x8 blocks keep tiles apart."""
    places = {name: (number % COLUMNS, number // COLUMNS) for number, name in enumerate(pictures)}
    file = io.BytesIO()
    Image.fromarray(sheet(list(pictures.values()))).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return Sprite(f"data:image/jpeg;base64,{encoded}", COLUMNS, places)


def sheet(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Lays uint8 [32, 32, 3] pictures out by line: uint8 [lines * 32, COLUMNS * 32, 3], white where there is none."""
    lines = max(1, -(-len(pictures) // COLUMNS))
    whole = np.full((lines * TILE, COLUMNS * TILE, 3), 255, np.uint8)
    for number, picture in enumerate(pictures):
        line, column = divmod(number, COLUMNS)
        whole[line * TILE : (line + 1) * TILE, column * TILE : (column + 1) * TILE] = fit(picture)
    return whole


def fit(picture: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3] -> [32, 32, 3]: views may be smaller than the images they are of."""
    if picture.shape[:2] == (TILE, TILE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.NEAREST))
