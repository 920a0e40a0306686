"""What pixels take on disk and to read, raw and as PNG, each gzipped as Transform gzips its rows, in one run.

    python -m benchmarks.pixel_codecs --cifar10 cifar-10-batches-bin

takes real photographs: CIFAR-10's at 32 pixels, and for larger ones random cuts, reduced by half, of the two that
scikit-learn carries. Bytes an image, and CPU milliseconds an image of this process, which a busy machine stretches less
than time. Decoding is Pillow's, one image after the other; TensorFlow's `map_fn` adds its own cost to each.
"""

import argparse
import io
import pathlib
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np
from PIL import Image
from sklearn import datasets

from components.data import cifar10, features

SIDES = {32: 2000, 96: 600, 128: 400}  # pixels: how many images
_GZIP = 6  # the level of TFRecords

_Result = TypeVar("_Result")


def photographs(side: int, count: int, official: pathlib.Path) -> np.ndarray:
    """Real ones: uint8 [count, side, side, 3]."""
    if side == features.IMAGE_SHAPE[0]:
        return cifar10.read_records(cifar10.location(official) / "data_batch_1.bin", count=count)[0]
    rng = np.random.default_rng(side)
    whole = datasets.load_sample_images().images
    cuts = []
    for number in range(count):
        picture = whole[number % len(whole)]
        top, left = (rng.integers(0, length - 2 * side + 1) for length in picture.shape[:2])
        cut = Image.fromarray(picture[top : top + 2 * side, left : left + 2 * side])
        cuts.append(np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR)))
    return np.stack(cuts)


def encoded(image: np.ndarray) -> bytes:
    """A PNG of uint8 [height, width, 3]."""
    data = io.BytesIO()
    Image.fromarray(image).save(data, "PNG")
    return data.getvalue()


def decoded(file: bytes) -> np.ndarray:
    """The pixels of a PNG again."""
    return np.asarray(Image.open(io.BytesIO(file)))


def measured(function: Callable[[], _Result]) -> tuple[_Result, float]:
    """What it gives, and its CPU milliseconds."""
    started = time.process_time()
    result = function()
    return result, (time.process_time() - started) * 1e3


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--cifar10", type=pathlib.Path, required=True, help="the official record files")
    options = parser.parse_args()
    print("| pixels | rows hold | bytes | gzipped | encoding, ms | gzip, ms | gunzip, ms | decoding, ms |")
    print("|---|---|---|---|---|---|---|---|")
    for side, count in SIDES.items():
        images = photographs(side, count, options.cifar10)
        files: list[bytes]
        files, encoding = measured(partial(list, map(encoded, images)))
        _, decoding = measured(partial(list, map(decoded, files)))
        for name, data, times in (
            ("raw", images.tobytes(), (0.0, 0.0)),
            ("PNG", b"".join(files), (encoding, decoding)),
        ):
            packed, packing = measured(partial(zlib.compress, data, _GZIP))
            _, unpacking = measured(partial(zlib.decompress, packed))
            costs = [times[0], packing, unpacking, times[1]]
            print(
                f"| {side} | {name} | {len(data) / count:,.0f} | {len(packed) / count:,.0f} | "
                + " | ".join(f"{cost / count:.3f}" for cost in costs)
                + " |"
            )


if __name__ == "__main__":
    main()
