"""Importing a file and embedding or sending the same file give the same embedding, whatever kind of picture it is."""

import io

import numpy as np
import pytest
from PIL import Image

from components.data import cifar10, picture_import
from pipeline import load_encoder
from pipeline.use import sent_pictures
from tests.component import tiny_served

ROWS, COLUMNS = np.mgrid[0:60, 0:90]


def smooth(number):
    """[60, 90, 3] uint8, another one for each number: equal pictures are imported once. A wrong orientation or a lost
    half makes a large difference in it, resampling a small one.
    """
    channels = [ROWS * 4, COLUMNS * 2, 255 - ROWS * 2 - COLUMNS + 5 * number]
    return np.stack(channels, axis=-1).clip(0, 255).astype(np.uint8)


def in_order(vectors):
    return vectors[np.argsort(vectors[:, 0])]


def encoded(picture, kind, **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def turned(picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    return encoded(picture, "JPEG", exif=exif.tobytes(), quality=95)


def transparent(picture):
    alpha = np.where(COLUMNS < 45, 255, 40).astype(np.uint8)
    return Image.fromarray(np.dstack([np.asarray(picture), alpha]))


OTHERS = [("train", "b", "red"), ("test", "a", "green"), ("test", "b", "blue")]
SECOND = Image.new("RGB", (90, 60))
MAKERS = {
    "exact.png": lambda p: encoded(p.crop((0, 0, 32, 32)), "PNG"),
    "plain.png": lambda p: encoded(p, "PNG"),
    "plain.jpg": lambda p: encoded(p, "JPEG", quality=95),
    "turned.jpeg": turned,
    "large.JPG": lambda p: encoded(p.resize((3000, 2000)), "JPEG", quality=80),
    "progressive.jpe": lambda p: encoded(p, "JPEG", progressive=True),
    "video-behind.jpg": lambda p: encoded(p, "JPEG") + b"ftypmp42" + b"\xff\xda\x00" * 100,
    "grey.png": lambda p: encoded(p.convert("L"), "PNG"),
    "deep.png": lambda p: encoded(Image.fromarray((ROWS * 1000).astype(np.uint16)), "PNG"),
    "palette.png": lambda p: encoded(p.convert("P", palette=Image.Palette.ADAPTIVE), "PNG", transparency=3),
    "alpha.png": lambda p: encoded(transparent(p), "PNG"),
    "alpha.webp": lambda p: encoded(transparent(p), "WEBP", lossless=True),
    "cmyk.jpg": lambda p: encoded(p.convert("CMYK"), "JPEG"),
    "plain.bmp": lambda p: encoded(p, "BMP"),
    "frames.gif": lambda p: encoded(p, "GIF", save_all=True, append_images=[SECOND]),
    "plain.tiff": lambda p: encoded(p, "TIFF"),
    "pages.tif": lambda p: encoded(p, "TIFF", save_all=True, append_images=[SECOND]),
}
KINDS = {name: make(Image.fromarray(smooth(i))) for i, (name, make) in enumerate(MAKERS.items())}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """All kinds as pictures of one class, with what else a data set needs."""
    folder = tmp_path_factory.mktemp("kinds")
    others = {
        f"{split}/{name}/x.png": encoded(Image.new("RGB", (9, 9), color), "PNG")
        for split, name, color in OTHERS
    }
    for name, data in ({f"train/a/{name}": data for name, data in KINDS.items()} | others).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture(scope="module")
def imported(files, tmp_path_factory):
    """The rows that `byol data import` makes of the files, [n, 32, 32, 3] uint8, in order of name."""
    out = tmp_path_factory.mktemp("imported") / "data"
    picture_import.import_pictures(files, out, picture_import.ImportSettings(32, 32, workers=1))
    found = cifar10.inspect_folder(out)
    parts = [cifar10.read_records(path) for path in found.train_files]
    images, labels = (np.concatenate(part) for part in zip(*parts, strict=True))
    return images[labels == 0]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    tiny_served.write(folder, 1, seed=1)
    return load_encoder(folder)


def test_every_kind_is_imported_embedded_and_served_alike(files, imported, encoder):
    names = sorted(KINDS)
    assert len(imported) == len(names)
    # Importing mixes the order: rows are told apart by their numbers.
    by_row = in_order(encoder(imported))
    assert np.abs(np.diff(by_row, axis=0)).sum(1).min() > 1e-4  # the encoder tells every two of them apart
    given = {
        "files": encoder([files / "train" / "a" / name for name in names]),
        "bytes": encoder([KINDS[name] for name in names]),
    }
    sent = sent_pictures.as_encoder_takes(np.array([KINDS[name] for name in names], object), 32, 32)
    given["sent"] = encoder._model.call("serving_default", {"image_bytes": sent})["embedding"]
    for way, vectors in given.items():
        np.testing.assert_allclose(in_order(vectors), by_row, atol=1e-6, err_msg=way)


@pytest.mark.parametrize("name", ["plain.png", "plain.jpg", "large.JPG", "exact.png", "grey.png"])
def test_the_graph_alone_says_nearly_the_same_of_what_it_takes(name, encoder):
    """TensorFlow Serving has no other reader (docs/decisions/0023-images-of-strangers.md)."""
    alone = encoder._model.call("serving_default", {"image_bytes": np.array([KINDS[name]], object)})[
        "embedding"
    ]
    (here,) = encoder([KINDS[name]])
    scale = np.abs(here).max()
    np.testing.assert_allclose(alone[0], here, atol=0.0 if name == "exact.png" else 0.02 * scale)
