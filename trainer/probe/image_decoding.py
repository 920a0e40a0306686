"""From encoded images of strangers to pixels, inside the served graph.

A request reaches the exported model without passing any code of ours, so what guards a server against hostile
images has to be in the graph. The order matters: an image is judged by its header, a few bytes, before any
decoder allocates memory for its pixels (a PNG of 20,000 x 20,000 pixels is a file of some kilobytes and 1.2
GB decoded).
"""

import tensorflow as tf

from components.data import features

# 16 Mpixel, above what common cameras and screens give, is 48 MiB decoded.
MAX_PIXELS = 16 * 1024 * 1024
# A progressive JPEG repeats its pixels scan by scan: many scans make a small file that takes minutes to
# decode. The usual script of libjpeg has 10 scans, and a thumbnail in the metadata may add as many.
MAX_JPEG_SCANS = 32

Shape = tuple[int, int, int]  # height, width, channels

_PNG_START = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"  # signature, then the length and name of the first chunk
_PNG_HEADER_BYTES = 33  # signature 8, chunk length 4, name 4, IHDR 13, checksum 4
_JPEG_START = b"\xff\xd8\xff"
_START_OF_SCAN, _END_OF_IMAGE = 0xDA, 0xD9  # markers (ITU-T T.81, table B.1)
_MAX_JPEG_SEGMENTS = 5000  # each is at most 64 KiB; large metadata are some hundred
_PARALLEL_IMAGES = 4  # bounds the memory that one request's largest images take together


def decode_images(
    image_bytes: tf.Tensor, max_pixels: int = MAX_PIXELS, shape: Shape = features.IMAGE_SHAPE
) -> tf.Tensor:
    """Decodes PNG and JPEG images of any size into what the encoder takes.

    An image of the encoder's size comes through unchanged, bit by bit. Any other is cut to the largest centred part
    of the encoder's proportions (a square for CIFAR-10), so that nothing is distorted, and resized with an
    antialiasing bilinear (triangle) filter. Grey, palette and 16-bit images become 8-bit RGB; an alpha channel and an
    EXIF orientation are ignored. A vector of no images gives a `[0, height, width, 3]` tensor.

    Args:
        image_bytes: string `[batch]`, encoded PNG or JPEG files.
        max_pixels: width times height above which an image is refused, unread.
        shape: of what the encoder takes: height, width, channels.

    Returns:
        uint8 `[batch, height, width, 3]` in 0..255.

    Raises:
        tf.errors.InvalidArgumentError: an image is neither PNG nor JPEG (a GIF or BMP, a text, zero bytes),
            is truncated or damaged, has more than `max_pixels` pixels or a JPEG too many scans. The whole
            request fails; the process that serves it does not.
    """
    return tf.map_fn(
        lambda image: _decode_one(image, max_pixels, shape),
        image_bytes,
        fn_output_signature=tf.TensorSpec(shape, tf.uint8),
        parallel_iterations=_PARALLEL_IMAGES,
    )


def _decode_one(image: tf.Tensor, max_pixels: int, shape: Shape) -> tf.Tensor:
    """A string [] -> uint8 [*shape]."""
    is_png = _starts_with(image, _PNG_START) & (tf.strings.length(image) >= _PNG_HEADER_BYTES)
    is_jpeg = _starts_with(image, _JPEG_START)
    known = tf.debugging.Assert(
        is_png | is_jpeg,
        [
            "Expected an image encoded as PNG or JPEG, received other bytes of length",
            tf.strings.length(image),
        ],
    )
    with tf.control_dependencies(_operations(known)):
        is_png = tf.identity(is_png)
    pixels = tf.cond(is_png, lambda: _decode_png(image, max_pixels), lambda: _decode_jpeg(image, max_pixels))
    return _to_shape(pixels, shape)


def _decode_png(image: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A string [] that starts as a PNG -> uint8 [height, width, 3]."""
    # Width and height are the first eight bytes of IHDR, big-endian (PNG specification, 11.2.2).
    size = tf.io.decode_raw(tf.strings.substr(image, 16, 8), tf.int32, little_endian=False)
    width, height = size[0], size[1]
    safe = _guarded(
        image, _within(height, width, max_pixels), ["image of too many pixels:", width, "x", height]
    )
    return tf.io.decode_png(safe, channels=3)


def _decode_jpeg(image: tf.Tensor, max_pixels: int) -> tf.Tensor:
    """A string [] that starts as a JPEG -> uint8 [height, width, 3]."""
    shape = tf.io.extract_jpeg_shape(image)  # reads the header alone
    height, width = shape[0], shape[1]
    small = _guarded(
        image, _within(height, width, max_pixels), ["image of too many pixels:", width, "x", height]
    )
    data = tf.io.decode_raw(small, tf.uint8)
    # Inside compressed data 0xFF is always followed by 0x00 or a restart marker, so this finds markers only.
    everywhere = tf.reduce_sum(tf.cast((data[:-1] == 0xFF) & (data[1:] == _START_OF_SCAN), tf.int32))
    # Few in all are few in the first picture; a telephone may have put a video or further pictures behind it.
    scans = tf.cond(everywhere <= MAX_JPEG_SCANS, lambda: everywhere, lambda: _scans_of_the_first(data))
    safe = _guarded(small, scans <= MAX_JPEG_SCANS, ["JPEG of too many scans:", scans])
    # The exact inverse transform is what other decoders use; TensorFlow's default is a faster approximation.
    return tf.io.decode_jpeg(safe, channels=3, dct_method="INTEGER_ACCURATE")


def _scans_of_the_first(data: tf.Tensor) -> tf.Tensor:
    """How many scans the first picture of a file has, as `components.data.pictures` counts them.

    Args:
        data: uint8 [bytes], a file that starts as a JPEG.

    Returns:
        int32 []; more than `MAX_JPEG_SCANS` for a file of more segments than any camera writes.
    """
    second = data[1:]
    without_length = (
        (second == 0) | (second == 0xFF) | (second == 0x01) | ((second >= 0xD0) & (second <= 0xD8))
    )
    places = tf.where((data[:-1] == 0xFF) & ~without_length)[:, 0]
    count = tf.size(places, tf.int64)
    padded = tf.cast(tf.concat([data, tf.zeros([4], tf.uint8)], 0), tf.int64)

    def step(begin: tf.Tensor, scans: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """From one marker to the next one behind its segment: a thumbnail inside of a segment is passed over."""
        index = tf.searchsorted(places, begin[tf.newaxis], out_type=tf.int64)[0]
        place = tf.gather(places, tf.minimum(index, count - 1))
        marker = padded[place + 1]
        ended = (index >= count) | (marker == _END_OF_IMAGE)
        scans += tf.cast(~ended & (marker == _START_OF_SCAN), tf.int32)
        return place + 2 + 256 * padded[place + 2] + padded[place + 3], scans, ended

    _, scans, ended = tf.while_loop(
        lambda _, scans, ended: ~ended & (scans <= MAX_JPEG_SCANS),
        step,
        (tf.constant(2, tf.int64), tf.constant(0), count == 0),
        maximum_iterations=_MAX_JPEG_SEGMENTS,
    )
    return tf.where(ended, scans, MAX_JPEG_SCANS + 1)


def _to_shape(pixels: tf.Tensor, shape: Shape) -> tf.Tensor:
    """uint8 [height, width, 3] -> uint8 [*shape]."""
    size = tf.shape(pixels)[:2]
    resized = tf.cond(
        tf.reduce_all(size == shape[:2]), lambda: pixels, lambda: crop_and_resize(pixels, shape[0], shape[1])
    )
    return tf.ensure_shape(resized, shape)


def crop_and_resize(pixels: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Cuts the largest centred part of the target's proportions and resizes it, as importing and serving both do.

    Args:
        pixels: uint8 [any height, any width, 3].
        height, width: of the result.

    Returns:
        uint8 [height, width, 3], by an antialiasing triangle filter.
    """
    size = tf.shape(pixels)[:2]
    # The crop is h x w with h / w = height / width, whole pixels, and as large as the picture allows.
    rows = tf.maximum(1, tf.minimum(size[0], size[1] * height // width))
    columns = tf.maximum(1, tf.minimum(size[1], size[0] * width // height))
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    cut = pixels[top : top + rows, left : left + columns]
    # The op under `tf.image.resize`, on uint8: no float copy of a large image is made.
    resized = tf.raw_ops.ScaleAndTranslate(
        images=cut[tf.newaxis],
        size=[height, width],
        scale=tf.stack(
            [
                tf.cast(to, tf.float32) / tf.cast(of, tf.float32)
                for to, of in ((height, rows), (width, columns))
            ]
        ),
        translation=tf.zeros([2]),
        kernel_type="triangle",
        antialias=True,
    )
    return tf.saturate_cast(tf.round(resized[0]), tf.uint8)


def _within(height: tf.Tensor, width: tf.Tensor, max_pixels: int) -> tf.Tensor:
    area = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
    return (height > 0) & (width > 0) & (area <= max_pixels)


def _guarded(image: tf.Tensor, condition: tf.Tensor, message: list[object]) -> tf.Tensor:
    """Passes `image` on if `condition` holds, and otherwise fails with `message`.

    The decoder has no side effects, so nothing but its input orders it after an assertion; and an optimizer
    may
    strip assertions. Hence the input itself depends on the condition: refused bytes never reach a decoder.
    """
    with tf.control_dependencies(_operations(tf.debugging.Assert(condition, ["Refused an", *message]))):
        return tf.where(condition, image, tf.constant(b""))


def _operations(operation: tf.Operation | None) -> list[tf.Operation]:
    return (
        [] if operation is None else [operation]
    )  # run eagerly, an assertion has raised already, and is None


def _starts_with(image: tf.Tensor, start: bytes) -> tf.Tensor:
    return tf.strings.substr(image, 0, len(start)) == tf.constant(start)
