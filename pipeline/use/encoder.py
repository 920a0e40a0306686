"""The pushed encoder from Python: images in, embeddings out.

    from pipeline import load_encoder

    encoder = load_encoder("runs/demo")
    vectors = encoder(["cat.png", "dog.jpg"])  # [2, d] float32

Pictures are read as `byol data import` reads them; what answers is the pushed SavedModel itself.
"""

import concurrent.futures
import dataclasses
import os
import pathlib
import typing
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np

from components import path_names
from components.data import pictures
from components.serving import serving_folder

if typing.TYPE_CHECKING:
    from pipeline.use.served_model import ServedModel

_SERVING = "serving"
_EMBEDDING = "embedding"

Image: TypeAlias = bytes | str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Embedded:
    """What became of some images.

    Attributes:
        vectors: [m, d] float32, of the images that could be read, in their order.
        kept: [m] int64, their places among the images given.
        broken: for each other place the reason.
    """

    vectors: np.ndarray
    kept: np.ndarray
    broken: Mapping[int, str]


class Encoder:
    """A pushed encoder; `load_encoder` makes one.

    Attributes:
        path: the version folder that it came from.
        dimension: the length of an embedding.
        image_shape: height, width and channels of what it takes; other images are cut and resized to it.
    """

    def __init__(self, model: "ServedModel") -> None:
        self._model = model
        self.path = model.path
        self.dimension: int = model.signatures["embed_pixels"].outputs[_EMBEDDING].shape[-1]
        self.image_shape: tuple[int, ...] = tuple(model.signatures["embed_pixels"].inputs["pixels"].shape[1:])

    def __call__(self, images: "np.ndarray | Sequence[Image]") -> np.ndarray:
        """Embeds images.

        Args:
            images: uint8 `[n, height, width, 3]`, or a sequence of pictures, as `byol data import` takes them: paths,
                or their bytes.

        Returns:
            [n, d] float32, a row an image. Images of another size than the encoder's are cut around their centre
            to its proportions and resized.

        Raises:
            ValueError: an array of another kind, or an image that cannot be read; it names the image.
        """
        if isinstance(images, np.ndarray):
            return self._embed_array(images)
        result = self.embed(images)
        for place, reason in result.broken.items():
            image = images[place]
            named = "bytes" if isinstance(image, bytes) else os.fspath(image)
            raise ValueError(f"Image {place} ({named}) cannot be read: {reason}.")
        return result.vectors

    def embed(self, images: Sequence[Image]) -> Embedded:
        """Embeds those of the images that can be read and tells of the others; arguments as in `__call__`."""
        height, width, _ = self.image_shape
        broken: dict[int, str] = {}
        kept: list[int] = []
        read: list[np.ndarray] = []
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            for place, found in enumerate(pool.map(lambda image: _read(image, height, width), images)):
                if isinstance(found, str):
                    broken[place] = found
                else:
                    kept.append(place)
                    read.append(found)
        pixels = np.stack(read) if read else np.zeros((0, *self.image_shape), np.uint8)
        vectors = self._embed_array(pixels)
        return Embedded(vectors, np.array(kept, np.int64), broken)

    def _embed_array(self, images: np.ndarray) -> np.ndarray:
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise ValueError(
                f"Expected uint8 images [n, height, width, 3], received {images.dtype} {list(images.shape)}. "
                "Multiply floats in [0, 1] by 255 and round; give one image as images[None]."
            )
        if not len(images):
            return np.zeros((0, self.dimension), np.float32)
        if images.shape[1:] != self.image_shape:
            height, width, _ = self.image_shape
            images = np.stack([pictures.fit_pixels(image, height, width) for image in images])
        return self._model.call("embed_pixels", {"pixels": images})[_EMBEDDING]


def load_encoder(path: str | os.PathLike[str]) -> Encoder:
    """Loads a pushed encoder.

    Args:
        path: a root that `byol run` was given, a serving folder (the highest version is taken), or a version folder.

    Raises:
        ValueError: there is no pushed model, or it cannot be loaded.
    """
    folder = find_version(path)
    # TensorFlow's C++ code tells of missing GPUs and chosen instructions, unless told before it is imported.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pipeline.use.served_model import (
        ServedModel,  # after the cheap question, because it imports TensorFlow
    )

    return Encoder(ServedModel(folder))


def find_version(path: str | os.PathLike[str]) -> pathlib.Path:
    """Returns the version folder that a root, a serving folder or a version folder stands for.

    Raises:
        ValueError: there is none, or TensorFlow would take its name for something else.
    """
    folder = pathlib.Path(path)
    path_names.check(folder)
    if (folder / serving_folder.SAVED_MODEL_FILE).is_file():
        return folder
    serving = folder / _SERVING if (folder / _SERVING).is_dir() else folder
    complete = [version.path for version in serving_folder.versions(serving) if version.complete]
    if not complete:
        raise ValueError(
            f"Expected a root, a serving folder or a version folder with a pushed model; received {folder}, "
            "which holds none. `byol run` pushes one."
        )
    return complete[-1]


def _read(image: Image, height: int, width: int) -> np.ndarray | str:
    """uint8 [height, width, 3], or why there is none."""
    try:
        source = image if isinstance(image, bytes) else pathlib.Path(image)
        return pictures.read_picture(source, height, width)
    except (OSError, ValueError) as error:
        return str(error)
