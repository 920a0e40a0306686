"""Decoding against Pillow, and hostile images, in the graph as a server runs it."""

import io
import pathlib
import resource
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from components.data import pictures
from trainer.probe import image_decoding


@pytest.fixture(scope="module")
def decode() -> Callable[[list[bytes]], Any]:
    graph = tf.function(image_decoding.decode_images, input_signature=[tf.TensorSpec([None], tf.string)])
    return lambda images: graph(tf.constant(images, tf.string)).numpy()


def _encoded(pixels: Any, form: str, **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def _noise(*shape: int) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def _smooth(height: int, width: int) -> Any:
    """uint8 [height, width, 3] without edges, on which resizing filters agree."""
    y, x = np.mgrid[0:height, 0:width]
    planes = [np.sin(x / width * 3), np.cos(y / height * 4), np.sin((x / width + y / height) * 2)]
    return np.round(127.5 + 127 * np.stack(planes, axis=-1)).astype(np.uint8)


def _png(width: int, height: int, data: bytes, *, bits: int = 1) -> bytes:
    png = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        png += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    return png


def _black_png(side: int) -> bytes:
    compressor = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    data = b"".join(compressor.compress(row) for _ in range(side)) + compressor.flush()
    return _png(side, side, data)


def _jpeg_of_claimed_size(side: int) -> bytes:
    jpeg = _encoded(_smooth(32, 32), "JPEG")
    size = jpeg.index(b"\xff\xc0") + 5  # marker, length, precision; then height and width
    return jpeg[:size] + struct.pack(">HH", side, side) + jpeg[size + 4 :]


def test_images_of_32x32_come_through_bit_by_bit(decode: Callable[[list[bytes]], Any]) -> None:
    pixels = _noise(3, 32, 32, 3)
    decoded = decode([_encoded(image, "PNG") for image in pixels])
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


def test_a_jpeg_of_32x32_decodes_as_pillow_decodes_it(decode: Callable[[list[bytes]], Any]) -> None:
    jpeg = _encoded(_smooth(32, 32), "JPEG", quality=95, subsampling=0)
    np.testing.assert_array_equal(decode([jpeg])[0], np.asarray(Image.open(io.BytesIO(jpeg))))


def test_no_images_give_an_empty_batch(decode: Callable[[list[bytes]], Any]) -> None:
    assert decode([]).shape == (0, 32, 32, 3)


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (Image.fromarray(_noise(32, 32), "L"), "RGB"),
        (Image.fromarray(_noise(32, 32, 3)).convert("P"), "RGB"),
        (Image.fromarray(_noise(32, 32, 3)).convert("1"), "RGB"),
    ],
    ids=["grey", "palette", "one bit"],
)
def test_kinds_of_png_become_rgb(decode: Callable[[list[bytes]], Any], pixels: Any, expected: str) -> None:
    np.testing.assert_array_equal(decode([_encoded(pixels, "PNG")])[0], np.asarray(pixels.convert(expected)))


def test_the_alpha_channel_is_ignored(decode: Callable[[list[bytes]], Any]) -> None:
    pixels = _noise(32, 32, 4)
    np.testing.assert_array_equal(decode([_encoded(pixels, "PNG")])[0], pixels[..., :3])


def test_sixteen_bits_become_the_upper_eight(decode: Callable[[list[bytes]], Any]) -> None:
    values = np.random.default_rng(0).integers(0, 65536, (32, 32), dtype=np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    decoded = decode([_png(32, 32, zlib.compress(rows), bits=16)])[0]
    expected = np.repeat((values >> 8).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    np.testing.assert_allclose(decoded.astype(int), expected, atol=1)  # libpng may round instead


def test_grey_and_cmyk_jpegs_become_rgb(decode: Callable[[list[bytes]], Any]) -> None:
    grey = _encoded(_smooth(32, 32)[..., 0], "JPEG")
    decoded = decode([grey])[0]
    np.testing.assert_array_equal(decoded[..., 0], decoded[..., 2])
    np.testing.assert_array_equal(decoded[..., 0], np.asarray(Image.open(io.BytesIO(grey))))
    cmyk = _encoded(Image.fromarray(_smooth(32, 32)).convert("CMYK"), "JPEG", quality=95)
    expected = np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB"))
    np.testing.assert_allclose(decode([cmyk])[0].astype(int), expected, atol=2)


@pytest.mark.parametrize("size", [(64, 64), (400, 600), (601, 397), (20, 16), (1, 50), (33, 32)])
def test_the_centred_square_is_resized_as_pillow_resizes(
    decode: Callable[[list[bytes]], Any], size: tuple[int, int]
) -> None:
    pixels = _smooth(*size)
    side = min(size)
    top, left = (size[0] - side) // 2, (size[1] - side) // 2
    square = Image.fromarray(pixels[top : top + side, left : left + side])
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BILINEAR))
    np.testing.assert_allclose(decode([_encoded(pixels, "PNG")])[0].astype(int), expected, atol=1)


def test_fine_detail_is_averaged_not_picked(decode: Callable[[list[bytes]], Any]) -> None:
    checkerboard = np.indices((512, 512)).sum(axis=0) % 2 * 255
    image = np.repeat(checkerboard[..., np.newaxis], 3, axis=-1).astype(np.uint8)
    decoded = decode([_encoded(image, "PNG")])[0]
    assert abs(decoded.mean() - 127.5) < 2
    assert decoded.std() < 3  # without antialiasing: 0 or 255, or stripes


def test_images_of_a_batch_do_not_depend_on_each_other(decode: Callable[[list[bytes]], Any]) -> None:
    images = [
        _encoded(_noise(32, 32, 3), "PNG"),
        _encoded(_smooth(90, 60), "JPEG"),
        _encoded(_noise(7, 9), "PNG"),
    ]
    together = decode(images)
    for row, image in enumerate(images):
        np.testing.assert_array_equal(decode([image])[0], together[row])


HOSTILE = {
    "bomb": (_black_png(20_000), "too many pixels"),
    "zero bytes": (b"", "PNG or JPEG"),
    "text": (b"This is a text file.\n" * 9, "PNG or JPEG"),
    "GIF": (
        _encoded(_noise(8, 8), "GIF", save_all=True, append_images=[Image.new("L", (8, 8))]),
        "PNG or JPEG",
    ),
    "BMP": (_encoded(_noise(32, 32, 3), "BMP"), "PNG or JPEG"),
    "PNG signature alone": (b"\x89PNG\r\n\x1a\n", "PNG or JPEG"),
    "PNG header alone": (_png(32, 32, b"")[:33], "PNG"),
    "PNG of no pixels": (_png(0, 32, zlib.compress(b"")), "too many pixels"),
    "PNG of negative size": (_png(2**31 + 5, 3, zlib.compress(b"")), "too many pixels"),
    "PNG with an overflowing area": (_png(2**31 - 1, 2**31 - 1, zlib.compress(b"")), "too many pixels"),
    "truncated PNG": (_encoded(_noise(32, 32, 3), "PNG")[:-300], "Invalid PNG"),
    "JPEG start alone": (b"\xff\xd8\xff", "Invalid JPEG"),
    "truncated JPEG": (_encoded(_noise(32, 32, 3), "JPEG")[:-300], "JPEG"),
    "JPEG bomb": (_jpeg_of_claimed_size(65_500), "too many pixels"),
    "random bytes": (_noise(500).tobytes(), "PNG or JPEG"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_images_are_errors_of_their_request_alone(
    decode: Callable[[list[bytes]], Any], name: str
) -> None:
    image, words = HOSTILE[name]
    good = _encoded(_noise(32, 32, 3), "PNG")
    for batch in ([image], [good, image]):
        with pytest.raises(tf.errors.InvalidArgumentError, match=words):
            decode(batch)
    np.testing.assert_array_equal(decode([good])[0], _noise(32, 32, 3))


def test_the_limit_is_the_last_size_that_is_decoded() -> None:
    images = [_encoded(_smooth(50, 40), "PNG")]
    jpegs = [_encoded(_smooth(50, 40), "JPEG")]
    for batch in (images, jpegs):
        assert image_decoding.decode_images(tf.constant(batch), max_pixels=2000).shape == (1, 32, 32, 3)
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many pixels"):
            image_decoding.decode_images(tf.constant(batch), max_pixels=1999)


def test_a_jpeg_of_very_many_scans_is_refused(decode: Callable[[list[bytes]], Any]) -> None:
    progressive = _encoded(_smooth(64, 64), "JPEG", progressive=True)
    assert decode([progressive]).shape == (1, 32, 32, 3)
    # Repeat the last scan, header and data: small in bytes, and each costs a pass over all pixels.
    last = progressive.rindex(b"\xff\xda")
    scan = progressive[last:-2]
    with pytest.raises(tf.errors.InvalidArgumentError, match="too many scans"):
        decode([progressive[:-2] + scan * image_decoding.MAX_JPEG_SCANS + b"\xff\xd9"])


def test_scans_are_counted_in_the_first_picture_alone(decode: Callable[[list[bytes]], Any]) -> None:
    """As the import's reader counts them: a telephone puts a video or further pictures behind a photograph, and a
    thumbnail or a map of depths into its metadata."""
    marks = b"\xff\xda" * 100
    for progressive in (False, True):
        plain = _encoded(_smooth(64, 64), "JPEG", progressive=progressive)
        expected = decode([plain])
        thumbnail = _encoded(
            _smooth(64, 64), "JPEG", progressive=progressive, exif=b"Exif\0\0" + marks + b"\xff\xd9"
        )
        for file in (plain + marks, plain + plain * 40, thumbnail, thumbnail + marks):
            assert pictures._scans(file) == pictures._scans(plain)
            assert (decode([file]) == expected).all()
    # The end of an image inside of a segment ends nothing, and nor do restarts.
    last = plain.rindex(b"\xff\xda")
    many = plain[:-2] + plain[last:-2] * image_decoding.MAX_JPEG_SCANS
    comment = b"\xff\xfe\x00\x04\xff\xd9"
    segments = plain[:2] + b"\xff\xfe\x00\x02" * (image_decoding._MAX_JPEG_SEGMENTS + 1) + plain[2:] + marks
    for file in (many + plain[-2:] + marks, plain[:2] + comment + many[2:], many, segments):
        with pytest.raises(tf.errors.InvalidArgumentError, match="too many scans"):
            decode([file])


def test_a_bomb_takes_no_memory_in_an_export_that_lacks_our_code(tmp_path: pathlib.Path) -> None:
    module = tf.Module()
    module.decode = tf.function(  # type: ignore[attr-defined]
        image_decoding.decode_images, input_signature=[tf.TensorSpec([None], tf.string)]
    )
    tf.saved_model.save(module, str(tmp_path / "model"))
    (tmp_path / "bomb.png").write_bytes(_black_png(20_000))
    (tmp_path / "good.png").write_bytes(_encoded(_noise(32, 32, 3), "PNG"))
    program = r"""
import pathlib, re, sys
import tensorflow as tf

def peak():  # not ru_maxrss, which begins with what the parent had
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path("/proc/self/status").read_text())[1]) // 1024

decode = tf.saved_model.load("model").decode
good = tf.constant([pathlib.Path("good.png").read_bytes()])
first = decode(good).numpy()
before = peak()
try:
    decode(tf.constant([pathlib.Path("bomb.png").read_bytes()] * 8))
except tf.errors.InvalidArgumentError:
    print(peak() - before, (decode(good).numpy() == first).all())
assert not [name for name in sys.modules if name.startswith("trainer")]
"""
    result = subprocess.run(
        [sys.executable, "-I", "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    growth, same = result.stdout.split()
    assert int(growth) < 64  # MiB; one of the eight decodes to 1,144
    assert same == "True"


@pytest.mark.parametrize("chunk", [b"zTXt", b"iCCP"])
def test_a_bomb_in_the_metadata_of_a_small_png_stays_small(
    decode: Callable[[list[bytes]], Any], chunk: bytes
) -> None:
    png = _encoded(_noise(32, 32, 3), "PNG")
    compressor = zlib.compressobj(9)
    data = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(512)) + compressor.flush()
    body = b"name\0\0" + data
    bomb = struct.pack(">I", len(body)) + chunk + body + struct.pack(">I", zlib.crc32(chunk + body))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(decode([png[:33] + bomb + png[33:]])[0], _noise(32, 32, 3))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


def test_a_bomb_that_says_it_is_small_stays_small(decode: Callable[[list[bytes]], Any]) -> None:
    # The pixels of 4,000 x 4,000 under a header of 32 x 32: the decoder stops where the header's size ends.
    bomb = _black_png(4000)
    data = bomb[bomb.index(b"IDAT") + 4 : -16]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    np.testing.assert_array_equal(decode([_png(32, 32, data)]), np.zeros((1, 32, 32, 3), np.uint8))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16 * 1024
