"""What one row holds: feature keys, image shape, label names, the content hash and the image-quality figures.

NumPy and the standard library only; nothing here reads a file.
"""

import hashlib

import numpy as np

IMAGE = "image"  # bytes, uint8 [height, width, 3], HWC, row-major; 3072 of CIFAR-10
LABEL = "label"  # int64 from 0 on; -1 for none
CONTENT_HASH = "content_hash"  # bytes, 32 lower-case hex characters

# Image-quality figures, float32, pixels scaled to [0, 1].
BRIGHTNESS = "brightness"  # mean of luma
CONTRAST = "contrast"  # standard deviation of luma, at most 0.5
MEAN_RED = "mean_red"
MEAN_GREEN = "mean_green"
MEAN_BLUE = "mean_blue"
SATURATED_SHARE = "saturated_share"  # share of the pixel values that are 0 or 255
IMAGE_FIGURES = (BRIGHTNESS, CONTRAST, MEAN_RED, MEAN_GREEN, MEAN_BLUE, SATURATED_SHARE)

# Added by Transform: float32 [3], the same constant on each row, over pixels in [0, 1].
CHANNEL_MEAN = "channel_mean"
CHANNEL_STD = "channel_std"

# CIFAR-10's; components/data/dataset.py has those of any data set.
IMAGE_SHAPE = (32, 32, 3)
IMAGE_BYTES = 32 * 32 * 3
LABEL_NAMES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

TRAIN_SPLIT = "train"
TEST_SPLIT = "test"
HOLDOUT_SPLIT = "holdout"

HOLDOUT_DENOMINATOR = 10  # one training image in ten chooses hyper-parameters
_HASH_CHARACTERS = 32
_LUMA_WEIGHTS = (0.299, 0.587, 0.114)  # ITU-R BT.601, section 2.5.1


def content_hashes(images: np.ndarray) -> list[bytes]:
    """Hashes each image's pixels, so that equal pictures have equal names wherever they come from.

    Args:
        images: `[batch, height, width, 3]` uint8.

    Returns:
        One entry per image: 32 lower-case hex characters of blake2b with a 16-byte digest over the HWC bytes.
    """
    rows = np.ascontiguousarray(_checked_images(images)).reshape(len(images), images[:1].size or 1)
    return [hashlib.blake2b(row, digest_size=16).hexdigest().encode("ascii") for row in rows]


def image_figures(images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the image-quality figures by which statistics can see a picture.

    Args:
        images: `[batch, height, width, 3]` uint8.

    Returns:
        For each key in `IMAGE_FIGURES` a float32 `[batch]` array; all lie in [0, 1], contrast in [0, 0.5].
    """
    count = len(_checked_images(images))
    pixels = images.shape[1] * images.shape[2]
    planes = np.ascontiguousarray(
        images.reshape(count, pixels, 3).transpose(0, 2, 1)
    )  # [batch, 3, pixels] uint8
    means = planes.sum(axis=2, dtype=np.uint32).astype(np.float32) / np.float32(pixels * 255)  # [batch, 3]
    luma = np.float32(_LUMA_WEIGHTS[0] / 255) * planes[:, 0]
    luma += np.float32(_LUMA_WEIGHTS[1] / 255) * planes[:, 1]
    luma += np.float32(_LUMA_WEIGHTS[2] / 255) * planes[:, 2]  # [batch, pixels] in [0, 1]
    flat = planes.reshape(count, pixels * 3)
    saturated = (flat + np.uint8(1) < 2).sum(axis=1, dtype=np.uint32)  # 255 + 1 wraps to 0
    return {
        BRIGHTNESS: np.minimum(luma.mean(axis=1), 1),  # rounding may lift pure white a last digit above 1
        CONTRAST: np.minimum(luma.std(axis=1), 0.5),
        MEAN_RED: means[:, 0],
        MEAN_GREEN: means[:, 1],
        MEAN_BLUE: means[:, 2],
        SATURATED_SHARE: saturated.astype(np.float32) / np.float32(pixels * 3),
    }


def is_holdout(content_hash: bytes | str) -> bool:
    """Tells whether a training image belongs to the fixed tenth on which hyper-parameters are chosen.

    The answer depends on the pixels alone, so it is the same in every run, span and record order.

    Args:
        content_hash: 32 lower-case hex characters, as `content_hashes` makes them.
    """
    if len(content_hash) != _HASH_CHARACTERS:
        raise ValueError(
            f"Expected a content hash of {_HASH_CHARACTERS} hex characters, received {content_hash!r}. "
            f"Pass the value of the feature {CONTENT_HASH!r}."
        )
    return int(content_hash[:8], 16) % HOLDOUT_DENOMINATOR == 0


def holdout_mask(hashes: np.ndarray | list[bytes]) -> np.ndarray:
    """`is_holdout` for many rows at once.

    Args:
        hashes: `[batch]` of bytes (NumPy "S32" or object), 32 hex characters each.

    Returns:
        bool `[batch]`, true for the held-out tenth.
    """
    if len(hashes) == 0:
        return np.zeros(0, dtype=bool)
    names = np.asarray(hashes, dtype="S")
    if names.dtype.itemsize != _HASH_CHARACTERS or names.ndim != 1:
        raise ValueError(
            f"Expected a vector of content hashes of {_HASH_CHARACTERS} hex characters, received shape "
            f"{names.shape} and {names.dtype.itemsize} characters. Pass the feature {CONTENT_HASH!r}."
        )
    characters = np.ascontiguousarray(names).view(np.uint8).reshape(len(names), _HASH_CHARACTERS)[:, :8]
    digits = np.where(characters >= ord("a"), characters - (ord("a") - 10), characters - ord("0"))
    values = digits.astype(np.uint64) @ (np.uint64(16) ** np.arange(7, -1, -1, dtype=np.uint64))
    return values % np.uint64(HOLDOUT_DENOMINATOR) == 0


def _checked_images(images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(
            f"Expected uint8 images of shape [batch, height, width, 3], received {images.dtype} "
            f"{list(images.shape)}. "
            "Decode the records with components.data.cifar10.decode_records first."
        )
    return images
