"""A request with a file of any kind gives the embedding that `load_encoder` gives, and so its record's."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from werkzeug.test import Client

from pipeline import load_encoder
from pipeline.use import rest, sent_pictures, version_follower
from tests.component import tiny_served

WIDTH, HEIGHT = 90, 70


def _encoded(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _kinds() -> dict[str, bytes]:
    """A file of every kind that people have, each of other content."""
    rng = np.random.default_rng(0)

    def drawn(width=WIDTH, height=HEIGHT, channels=3):
        coarse = rng.integers(0, 256, (6, 8, channels), dtype=np.uint8)
        return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)

    turned = Image.Exif()
    turned[0x0112] = 6
    palette = drawn().convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    deep = (np.asarray(drawn().convert("L")).astype(np.uint16) << 8) + 77
    return {
        "turned.jpg": _encoded(drawn(), "JPEG", exif=turned),
        "deep.png": _encoded(Image.fromarray(deep), "PNG"),
        "palette.png": _encoded(palette, "PNG", transparency=3),
        "grey.jpg": _encoded(drawn().convert("L"), "JPEG"),
        "cmyk.jpg": _encoded(drawn().convert("CMYK"), "JPEG"),
        "alpha.png": _encoded(drawn(channels=4), "PNG"),
        "alpha.webp": _encoded(drawn(channels=4), "WEBP"),
        "plain.bmp": _encoded(drawn(), "BMP"),
        "moving.gif": _encoded(palette, "GIF", save_all=True, append_images=[drawn(), drawn()]),
        "plain.tif": _encoded(drawn(), "TIFF"),
        "large.jpeg": _encoded(drawn(5000, 4000), "JPEG"),
        "several.mpo": _encoded(drawn(), "MPO", save_all=True, append_images=[drawn()]),
        "motion": _encoded(drawn(), "JPEG") + b"\x00\x00\x00\x18ftypmp42" + rng.bytes(3000),
        "same.png": _encoded(drawn(32, 32), "PNG"),
    }


@pytest.fixture(scope="module")
def files():
    return _kinds()


@pytest.fixture(scope="module")
def serving(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    tiny_served.write(folder, 1, seed=1)
    return folder


@pytest.fixture(scope="module")
def client(serving):
    return Client(rest.RestApp("enc", version_follower.VersionFollower(serving)))


def _ask(client, files, signature=""):
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"signature_name": signature, "instances": instances})
    answer = client.post("/v1/models/enc:predict", data=body)
    return answer.status_code, json.loads(answer.data)


def test_the_server_says_of_every_kind_what_load_encoder_says(files, serving, client):
    status, answer = _ask(client, files.values())
    assert status == 200, answer
    expected = load_encoder(serving)(list(files.values()))
    assert np.ptp(expected, axis=0).min() > 1e-3  # the files differ
    np.testing.assert_allclose(answer["predictions"], expected, rtol=1e-5, atol=1e-6)


def test_a_server_decodes_a_large_jpeg_small_and_bounds_all_else(client, monkeypatch, files):
    monkeypatch.setattr(sent_pictures, "MOST_PIXELS", 400_000)
    large = Image.open(io.BytesIO(files["large.jpeg"]))
    assert _ask(client, [files["large.jpeg"]])[0] == 200
    for data in (_encoded(large, "JPEG", progressive=True), _encoded(large, "BMP")):
        status, answer = _ask(client, [files["same.png"], data])
        assert status == 400
        assert "Picture 1 cannot be read: " in answer["error"]
        assert "more than 400000 pixels" in answer["error"]


def test_classify_takes_every_kind_and_an_empty_batch_is_no_crash(client, files):
    status, answer = _ask(client, files.values(), "classify")
    assert status == 200, answer
    assert len(answer["predictions"]) == len(files)
    status, _ = _ask(client, [b""])
    assert status == 400
