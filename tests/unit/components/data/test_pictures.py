"""Picture files of every kind, right by pixel."""

import contextlib
import errno
import io
import pathlib

import numpy as np
import pytest
from PIL import Image

from components.data import pictures

RED_LEFT = np.zeros((20, 30, 3), np.uint8)
RED_LEFT[:, :15] = (255, 0, 0)
RED_LEFT[:, 15:] = (0, 0, 255)


def _read(tmp_path, image, kind="PNG", height=20, width=30, **options):
    path = tmp_path / "picture"
    image.save(path, kind, **options)
    return pictures.read_picture(path, height, width)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_lossless_kinds_come_back_as_they_are(tmp_path, kind):
    np.testing.assert_array_equal(_read(tmp_path, Image.fromarray(RED_LEFT), kind), RED_LEFT)


def test_webp_without_loss(tmp_path):
    read = _read(tmp_path, Image.fromarray(RED_LEFT), "WEBP", lossless=True)
    np.testing.assert_array_equal(read, RED_LEFT)


@pytest.mark.parametrize("kind", ["JPEG", "MPO"])
def test_jpeg_is_near(tmp_path, kind):
    read = _read(tmp_path, Image.fromarray(RED_LEFT), kind, quality=98, subsampling=0)
    assert np.abs(read.astype(int) - RED_LEFT).max() <= 12


def test_the_orientation_is_applied(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned a quarter to the right
    lying = Image.fromarray(np.rot90(RED_LEFT))
    read = _read(tmp_path, lying, "PNG", exif=exif)
    np.testing.assert_array_equal(read, RED_LEFT)


def test_transparency_shows_the_background(tmp_path):
    clear = np.zeros((20, 30, 4), np.uint8)
    clear[:, :15] = (10, 20, 30, 255)
    read = _read(tmp_path, Image.fromarray(clear))
    assert read[0, 0].tolist() == [10, 20, 30]
    assert read[0, 29].tolist() == [255, 255, 255]


def test_16_bits_keep_the_high_ones(tmp_path):
    deep = np.full((20, 30), 0x8040, np.uint16)
    read = _read(tmp_path, Image.fromarray(deep))
    assert read[0, 0].tolist() == [0x80] * 3


def test_palette_grey_and_cmyk(tmp_path):
    palette = Image.fromarray(RED_LEFT).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_array_equal(_read(tmp_path, palette), RED_LEFT)
    grey = Image.fromarray(np.full((20, 30), 77, np.uint8))
    assert _read(tmp_path, grey)[3, 3].tolist() == [77, 77, 77]
    cmyk = _read(tmp_path, Image.fromarray(RED_LEFT).convert("CMYK"), "TIFF")
    np.testing.assert_array_equal(cmyk, RED_LEFT)


def test_the_first_frame_of_a_gif_is_taken(tmp_path):
    frames = [Image.new("RGB", (30, 20), color) for color in ("red", "blue")]
    read = _read(tmp_path, frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read[0, 0].tolist() == [255, 0, 0]


def test_the_middle_is_cut_to_the_wanted_proportions(tmp_path):
    wide = np.zeros((10, 40, 3), np.uint8)
    wide[:, 15:25] = 200
    read = _read(tmp_path, Image.fromarray(wide), height=10, width=10)
    assert (read == 200).all()


def test_a_jpeg_with_more_behind_it_is_read(tmp_path):
    file = io.BytesIO()
    Image.fromarray(RED_LEFT).save(file, "JPEG", quality=98)
    (tmp_path / "motion.jpg").write_bytes(file.getvalue() + b"ftypmp42" + bytes(1000))
    assert pictures.read_picture(tmp_path / "motion.jpg", 20, 30)[0, 0, 0] > 200


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "no picture of a kind"), (b"text", "no picture of a kind"), (b"%PDF-1.4", "no picture of a kind")],
)
def test_what_is_no_picture_is_said(tmp_path, content, reason):
    (tmp_path / "x.jpg").write_bytes(content)
    with pytest.raises(pictures.PictureError, match=reason):
        pictures.read_picture(tmp_path / "x.jpg", 8, 8)


def test_a_file_that_cannot_be_opened_is_not_called_damaged(tmp_path, monkeypatch):
    """Whoever runs this may be root, who may read everything."""
    (tmp_path / "x.png").write_bytes(_encoded(Image.fromarray(RED_LEFT), "PNG"))

    def refused(self):
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(pathlib.Path, "read_bytes", refused)
    with pytest.raises(pictures.PictureError, match=r"^it cannot be opened: Permission denied$"):
        pictures.read_picture(tmp_path / "x.png", 8, 8)


def test_a_truncated_picture_is_damaged(tmp_path):
    file = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, "PNG")
    (tmp_path / "x.png").write_bytes(file.getvalue()[:2000])
    with pytest.raises(pictures.PictureError, match="damaged"):
        pictures.read_picture(tmp_path / "x.png", 8, 8)


def _encoded(picture, kind, **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


@pytest.mark.parametrize(("kind", "how"), [("PNG", {}), ("JPEG", {"progressive": True})])
def test_too_many_pixels_are_refused_by_the_header(kind, how):
    data = _encoded(Image.new("RGB", (400, 300)), kind, **how)
    assert pictures.read_picture(data, 2, 2, most_pixels=120_000).shape == (2, 2, 3)
    with pytest.raises(pictures.PictureError, match="400x300 are more than 119999 pixels"):
        pictures.read_picture(data, 2, 2, most_pixels=119_999)


def test_a_large_jpeg_is_decoded_at_a_reduced_scale_instead_of_refused():
    """Of 200 megapixels, as telephones take them, an eighth of each side is decoded."""
    data = _encoded(Image.new("RGB", (16_320, 12_240), (10, 200, 30)), "JPEG")
    read = pictures.read_picture(data, 32, 32, most_pixels=4_000_000)
    np.testing.assert_allclose(read.reshape(-1, 3), np.tile([10, 200, 30], (1024, 1)), atol=3)


def test_pillows_own_guard_is_as_it_was():
    """Whoever embeds pictures in a program of their own has other uses of Pillow."""
    before = Image.MAX_IMAGE_PIXELS
    assert before
    for data in (_encoded(Image.new("RGB", (9, 9)), "PNG"), b"no picture"):
        with contextlib.suppress(pictures.PictureError):
            pictures.read_picture(data, 8, 8)
        assert before == Image.MAX_IMAGE_PIXELS


def test_scans_are_counted_in_the_picture_alone():
    """A video behind it holds the marker's two bytes by chance, once in 64 KiB."""
    plain = _encoded(Image.fromarray(RED_LEFT), "JPEG", exif=b"Exif\0\0" + b"\xff\xda\xff\xd9" * 50)
    assert pictures._scans(plain + b"\xff\xda" * 100) == 1
    assert pictures.read_picture(plain + b"\xff\xda" * 100, 20, 30).shape == (20, 30, 3)
    several = _encoded(Image.fromarray(RED_LEFT), "JPEG", progressive=True)
    found = pictures._scans(several)
    assert found > 3
    last = several.rindex(b"\xff\xda")
    many = several[:-2] + several[last:-2] * 40 + several[-2:]
    with pytest.raises(pictures.PictureError, match=f"a JPEG of {found + 40} scans; at most 32"):
        pictures.read_picture(many, 8, 8)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_a_picture_is_told_by_its_beginning(tmp_path, kind):
    path = tmp_path / "x"
    path.write_bytes(_encoded(Image.new("RGB", (2, 2)), kind))
    assert pictures.is_picture(path)
    for other in (b"", b"RIFF0000WAVE", b"notes"):
        path.write_bytes(other)
        assert not pictures.is_picture(path)
    assert not pictures.is_picture(tmp_path)
