"""Many small pictures as one image inside the page."""

import base64
import dataclasses
import io

import numpy as np
from PIL import Image

TILE = 32
_COLUMNS = 32
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
    lines = max(1, -(-len(pictures) // _COLUMNS))
    sheet = np.full((lines * TILE, _COLUMNS * TILE, 3), 255, np.uint8)
    places = {}
    for number, (name, picture) in enumerate(pictures.items()):
        line, column = divmod(number, _COLUMNS)
        sheet[line * TILE : (line + 1) * TILE, column * TILE : (column + 1) * TILE] = fit(picture)
        places[name] = (column, line)
    file = io.BytesIO()
    Image.fromarray(sheet).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    encoded = base64.b64encode(file.getvalue()).decode("ascii")
    return Sprite(f"data:image/jpeg;base64,{encoded}", _COLUMNS, places)


def fit(picture: np.ndarray) -> np.ndarray:
    """uint8 [height, width, 3] -> [32, 32, 3]: views may be smaller than the images they are of."""
    if picture.shape[:2] == (TILE, TILE):
        return picture
    return np.asarray(Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.NEAREST))
