"""The embedded demo data set: ten procedural textures, written as records of CIFAR-10's size in seconds.

A class is a texture. Everything else in an image is drawn at random and says nothing about the class: two
colours, pose, scale, position, the outline of the textured object, the background, lighting and noise. So a
classifier on raw pixels or on colour fails, and what remains after BYOL's crops, flips and colour changes
(the texture, visible in any fifth of the object, in brightness as well as in colour) is what the classes are
about. `dataset.json` beside the records names them.
"""

import itertools
import json
import pathlib
from collections.abc import Callable

import numpy as np

from components import staging
from components.data import cifar10, dataset, features
from components.data.dataset import DataSet

MARKER_FILE = "synthetic.json"  # says which data set a folder holds, so that writing it again is free
GENERATOR_VERSION = 1

_TRAIN_FILES = 5  # as the official archive
_CHUNK = 500  # images drawn at once; bounds memory at about 20 MB
_SIZE = features.IMAGE_SHAPE[0]

# Chosen so that the task is neither lost nor won beforehand: logistic regression on pixels and a random
# encoder both fall well short of what a trained encoder reaches (docs/decisions/0011-demo-data.md has the
# measurements).
_CYCLES = (3.5, 5.0)  # texture periods across the image
_ROTATION = np.pi / 12  # either way, radians
_SHIFT = 7.0  # of the object's centre, pixels either way
_EXTENT = (20.0, 36.0)  # of the object from its centre, pixels: most reach over an edge of the image
_COLOUR = 0.35  # spread of the channels of a colour around its brightness
_CONTRAST = (0.4, 0.8)  # between the brightness of the two colours
_CLUTTER = 0.5  # range of the background's colours
_NOISE = (0.01, 0.05)  # standard deviation of pixel noise


# In the order of TEXTURES.
DRAWN = DataSet(
    name="drawn textures",
    pictures="textures of ten kinds, drawn by this program; numbers on them say nothing about photographs",
    label_names=(
        "level stripes",
        "upright stripes",
        "slanted stripes",
        "checks",
        "dots",
        "mesh",
        "rings",
        "rays",
        "zigzag",
        "labyrinth",
    ),
    height=features.IMAGE_SHAPE[0],
    width=features.IMAGE_SHAPE[1],
)


def write(out_dir: str | pathlib.Path, train: int = 10_000, test: int = 2_000, seed: int = 0) -> pathlib.Path:
    """Writes `data_batch_1..5.bin`, `test_batch.bin` and `dataset.json`, all of them or none.

    Args:
        out_dir: the folder to make; a folder that already holds this very data set is left as it is, also
            one of an earlier release, whose classes have CIFAR-10's names.
        train, test: numbers of images, each at least 10; classes are balanced to within one image.
        seed: same seed, same images (on one NumPy build; another may round a pixel differently).

    Returns:
        The folder.

    Raises:
        ValueError: too few images, or `out_dir` holds something else.
        OSError: no write permission, or a full disk; nothing is left behind.
    """
    if min(train, test) < DRAWN.classes or seed < 0:
        raise ValueError(
            f"Expected at least 10 training and 10 test images and a seed of 0 or more, received "
            f"train={train}, "
            f"test={test}, seed={seed}."
        )
    folder = pathlib.Path(out_dir)
    marker = (
        json.dumps({"version": GENERATOR_VERSION, "train": train, "test": test, "seed": seed}, indent=2)
        + "\n"
    )
    if (folder / MARKER_FILE).is_file() and (folder / MARKER_FILE).read_text() == marker:
        return folder
    train_seed, test_seed = np.random.SeedSequence(seed).spawn(2)
    with staging.staged_folder(folder) as staged:
        train_images, train_labels = make_images(train, np.random.default_rng(train_seed))
        bounds = np.linspace(0, train, _TRAIN_FILES + 1).astype(int)
        for number, (start, stop) in enumerate(itertools.pairwise(bounds), start=1):
            records = cifar10.encode_records(train_images[start:stop], train_labels[start:stop])
            (staged / f"data_batch_{number}.bin").write_bytes(records)
        test_images, test_labels = make_images(test, np.random.default_rng(test_seed))
        (staged / "test_batch.bin").write_bytes(cifar10.encode_records(test_images, test_labels))
        (staged / dataset.FILE).write_text(DRAWN.to_json() + "\n", encoding="utf-8")
        (staged / MARKER_FILE).write_text(marker)
    return folder


def make_images(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws images in random class order.

    Returns:
        images `[count, 32, 32, 3]` uint8 and labels `[count]` int64, each class `count / 10` times to within
        one.
    """
    labels = rng.permutation(np.arange(count) % DRAWN.classes)
    images = np.empty((count, *features.IMAGE_SHAPE), np.uint8)
    for label, texture in enumerate(TEXTURES):
        rows = np.flatnonzero(labels == label)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            images[chunk] = _draw(texture, len(chunk), rng)
    return images, labels


def _draw(texture: Callable[..., np.ndarray], count: int, rng: np.random.Generator) -> np.ndarray:
    """Renders one class: uint8 `[count, 32, 32, 3]`."""
    x, y = _posed_grid(count, rng)
    frequency = _column(2 * np.pi / _SIZE * _log_uniform(rng, *_CYCLES, count))
    paint = texture(x, y, frequency, rng)[..., None]  # [count, 32, 32, 1] in [0, 1]
    outline = _outline(x, y, rng)[..., None]
    lighter, darker = _two_colours(count, rng)
    background = _background(count, rng)
    image = outline * (paint * lighter + (1 - paint) * darker) + (1 - outline) * background
    image *= _lighting(count, rng)
    image += rng.standard_normal(image.shape, np.float32) * _column(rng.uniform(*_NOISE, count))[..., None]
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


# The ten textures. x, y: [count, 32, 32] float32 pixel coordinates in the object's own pose; frequency:
# [count, 1, 1] radians a pixel; each returns paint in [0, 1]. Edges are soft so that nothing aliases at this
# size.


def _level_stripes(
    x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    return _soft(np.sin(frequency * y + _phase(x, rng)))


def _upright_stripes(
    x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    del y  # every texture has the same signature
    return _soft(np.sin(frequency * x + _phase(x, rng)))


def _slanted_stripes(
    x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    slope = _column(rng.choice([-1, 1], len(x)))  # either way, so that a mirrored picture stays in its class
    return _soft(np.sin(frequency * (x + slope * y) / np.sqrt(2) + _phase(x, rng)))


def _checks(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    along, across = frequency * 0.8 * x + _phase(x, rng), frequency * 0.8 * y + _phase(x, rng)
    return _soft(2 * np.sin(along) * np.sin(across))


def _dots(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lattice = np.cos(frequency * x + _phase(x, rng)) + np.cos(frequency * y + _phase(x, rng))
    return _soft(2 * (lattice - 0.7))


def _mesh(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    lines = np.maximum(
        np.cos(frequency * 0.8 * x + _phase(x, rng)), np.cos(frequency * 0.8 * y + _phase(x, rng))
    )
    return 1 - _soft(3 * (lines - 0.75))


def _rings(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _soft(np.sin(frequency * np.hypot(x, y) + _phase(x, rng)))


def _rays(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    del frequency  # rays have a number, not a length
    arms = _column(rng.integers(5, 10, len(x)))
    return _soft(np.sin(arms * np.arctan2(y, x) + _phase(x, rng)))


def _zigzag(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    bend = np.arcsin(np.sin(frequency * 0.8 * x + _phase(x, rng)))  # a triangle wave
    return _soft(np.sin(frequency * y + 1.6 * bend))


def _labyrinth(x: np.ndarray, y: np.ndarray, frequency: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    total = np.zeros_like(x)
    for _ in range(8):  # eight waves of one length and any direction: worm-like, without a lattice
        angle = _phase(x, rng)
        total += np.sin(frequency * (np.cos(angle) * x + np.sin(angle) * y) + _phase(x, rng))
    return _soft(total / 1.5)


TEXTURES = (
    _level_stripes,
    _upright_stripes,
    _slanted_stripes,
    _checks,
    _dots,
    _mesh,
    _rings,
    _rays,
    _zigzag,
    _labyrinth,
)


def _posed_grid(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Pixel coordinates after a random shift and rotation: two float32 `[count, 32, 32]`, the centre near
    zero.
    """
    axis = np.arange(_SIZE, dtype=np.float32) - (_SIZE - 1) / 2
    shift_x, shift_y = (_column(rng.uniform(-_SHIFT, _SHIFT, count)) for _ in range(2))
    left, down = axis[None, None, :] - shift_x, axis[None, :, None] - shift_y
    angle = _column(rng.uniform(-_ROTATION, _ROTATION, count))
    return np.cos(angle) * left + np.sin(angle) * down, np.cos(angle) * down - np.sin(angle) * left


def _outline(x: np.ndarray, y: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The object's silhouette, from ellipse to rounded rectangle: float32 `[count, 32, 32]` in [0, 1]."""
    count = len(x)
    width, height = (_column(rng.uniform(*_EXTENT, count)) for _ in range(2))
    power = _column(rng.choice([2, 4, 8], count))
    distance = (np.abs(x / width) ** power + np.abs(y / height) ** power) ** (1 / power)
    return np.clip((1 - distance) * 8 + 0.5, 0, 1)


def _two_colours(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours an image, float32 `[count, 1, 1, 3]` in [0, 1]. The first is the lighter one: the texture
    must survive a conversion to grey.
    """
    lighter, darker = (_COLOUR * rng.random((count, 1, 1, 3), np.float32) for _ in range(2))
    gap = _column(rng.uniform(*_CONTRAST, count))[..., None]
    middle = rng.uniform(0.35, 0.65, (count, 1, 1, 1)).astype(np.float32)
    lighter += middle + gap / 2 - lighter.mean(axis=-1, keepdims=True)
    darker += middle - gap / 2 - darker.mean(axis=-1, keepdims=True)
    return np.clip(lighter, 0, 1), np.clip(darker, 0, 1)


def _background(count: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth clutter in random colours: float32 `[count, 32, 32, 3]` in [0, 1]."""
    knots = np.float32(0.5) + np.float32(_CLUTTER) * (
        rng.random((count, 4, 4, 3), np.float32) - np.float32(0.5)
    )
    weights = _interpolation(4)
    clutter = np.einsum("ik,nklc->nilc", weights, knots, optimize=True)
    return np.einsum("jl,nilc->nijc", weights, clutter, optimize=True)


def _lighting(count: int, rng: np.random.Generator) -> np.ndarray:
    """A light that falls off across the picture: float32 `[count, 32, 32, 1]` around 1."""
    axis = np.linspace(-1, 1, _SIZE, dtype=np.float32)
    slope_x, slope_y = (_column(rng.uniform(-0.2, 0.2, count)) for _ in range(2))
    return (
        _column(rng.uniform(0.8, 1.15, count)) + slope_x * axis[None, None, :] + slope_y * axis[None, :, None]
    )[..., None]


def _interpolation(knots: int) -> np.ndarray:
    """Linear interpolation from `knots` points to 32 pixels: float32 `[32, knots]`, rows sum to 1."""
    position = np.linspace(0, knots - 1, _SIZE, dtype=np.float32)[:, None]
    return np.maximum(0, 1 - np.abs(position - np.arange(knots, dtype=np.float32)[None, :]))


def _soft(wave: np.ndarray) -> np.ndarray:
    """Maps a wave to paint in [0, 1] with edges about a pixel wide."""
    return np.clip(0.5 + 1.5 * wave, 0, 1)


def _phase(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _column(rng.uniform(0, 2 * np.pi, len(x)))


def _log_uniform(rng: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    return np.exp(rng.uniform(np.log(low), np.log(high), count))


def _column(values: np.ndarray) -> np.ndarray:
    """One number an image, float32 `[count, 1, 1]`, so that no image array is widened to float64."""
    return values.astype(np.float32).reshape(-1, 1, 1)
