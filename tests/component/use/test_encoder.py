"""The Python API and the commands over a pushed model give what Keras gives for the same pixels."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.data.pictures import MAX_FILE_BYTES
from components.serving.serving_requests import png_bomb
from pipeline import cli, load_encoder
from pipeline.use import commands as use_commands
from pipeline.use import embeddings
from pipeline.use.encoder import find_version
from tests.component import tiny_served


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A root with two versions; the reference is of the higher one."""
    root = tmp_path_factory.mktemp("pushed")
    (root / "serving").mkdir()
    tiny_served.write(root / "serving", 9, seed=1)
    return root, tiny_served.write(root / "serving", 10, seed=2)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (300, 32, 32, 3), dtype=np.uint8)


def _png(image, mode="RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).convert(mode).save(file, "PNG")
    return file.getvalue()


def test_every_way_to_name_the_model_gives_the_served_version(pushed, tmp_path):
    root, _ = pushed
    version = root / "serving" / "10"
    assert {find_version(place) for place in (root, root / "serving", version, str(root))} == {version}
    with pytest.raises(ValueError, match=r"which holds none\. `byol run` pushes one"):
        find_version(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no graph")
    with pytest.raises(ValueError, match="Cannot load a SavedModel"):
        load_encoder(tmp_path)


def test_pixels_bytes_and_files_give_keras_numbers(pushed, images, tmp_path):
    root, keras_encoder = pushed
    encoder = load_encoder(root)
    expected = tiny_served.keras_embedding(keras_encoder, images)
    assert np.abs(expected[0] - expected[1]).max() > 1e-3  # the reference tells images apart
    found = encoder(images)  # more than one batch of the network
    assert found.dtype == np.float32
    assert found.shape == (300, encoder.dimension) == (300, tiny_served.DIMENSION)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    path = tmp_path / "one.png"
    path.write_bytes(_png(images[0]))
    mixed = encoder([path, str(path), _png(images[1])])
    np.testing.assert_allclose(mixed, expected[[0, 0, 1]], atol=1e-5)
    assert encoder([]).shape == (0, tiny_served.DIMENSION)


def test_an_array_of_another_size_is_what_its_png_is(pushed):
    root, _ = pushed
    encoder = load_encoder(root)
    large = np.random.default_rng(1).integers(0, 256, (2, 50, 40, 3), dtype=np.uint8)
    np.testing.assert_array_equal(encoder(large), encoder([_png(image) for image in large]))


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((1, 32, 32, 3), np.float32), np.zeros((32, 32, 3), np.uint8), np.zeros((1, 8, 8, 1), np.uint8)],
)
def test_wrong_arrays_are_named(pushed, wrong):
    with pytest.raises(ValueError, match="Expected uint8 images"):
        load_encoder(pushed[0])(wrong)


def test_hostile_images_are_told_apart_from_good_ones(pushed, images, tmp_path):
    root, keras_encoder = pushed
    encoder = load_encoder(root)
    whole = _png(images[1])
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    given = [
        *[_png(images[0]), b"", b"text", whole[: len(whole) // 2], png_bomb(20_000)],
        *[tmp_path, tmp_path / "none.png", huge, _png(images[2])],
    ]
    result = encoder.embed(given)
    assert result.kept.tolist() == [0, 8]
    assert sorted(result.broken) == [1, 2, 3, 4, 5, 6, 7]
    assert "no picture of a kind that is read" in result.broken[2]
    assert "damaged: " in result.broken[3]
    assert "20000x20000 are more than" in result.broken[4]
    assert "no such file" in result.broken[5]
    assert str(MAX_FILE_BYTES) in result.broken[7]
    expected = tiny_served.keras_embedding(keras_encoder, images[[0, 2]])
    np.testing.assert_allclose(result.vectors, expected, atol=1e-5)
    with pytest.raises(ValueError, match=r"^Image 1 \(bytes\) cannot be read: "):
        encoder(given)


@pytest.fixture(scope="module")
def folder(images, tmp_path_factory):
    """Six images in two folders, and a broken one."""
    folder = tmp_path_factory.mktemp("images")
    for number in range(6):
        place = folder / ("a" if number < 3 else "b")
        place.mkdir(exist_ok=True)
        (place / f"{number}.png").write_bytes(_png(images[number]))
    (folder / "b" / "broken.JPG").write_bytes(b"\xff\xd8\xff no image")
    (folder / "notes.txt").write_text("no picture, and named as such")
    (folder / ".hidden.png").write_bytes(_png(images[9]))
    return folder


@pytest.mark.parametrize("suffix", embeddings.SUFFIXES)
def test_embed_and_search_commands(pushed, images, folder, tmp_path, suffix):
    root, keras_encoder = pushed
    out = tmp_path / f"x{suffix}"
    result = CliRunner().invoke(cli.app, ["embed", str(folder), "--root", str(root), "--out", str(out)])
    assert result.exit_code == 1
    assert "broken.JPG" in result.output
    assert "1 of 7 images were left out" in result.output
    assert f"Left out, being no pictures (1): {folder / 'notes.txt'}." in result.output
    table = embeddings.load(out)
    names = [str(folder / ("a" if i < 3 else "b") / f"{i}.png") for i in range(6)]
    assert list(table.names) == names
    expected = tiny_served.keras_embedding(keras_encoder, images[:6])
    np.testing.assert_allclose(table.vectors, expected, atol=1e-5)

    found = CliRunner().invoke(cli.app, ["search", names[4], "--in", str(out), "-k", "3"])
    assert found.exit_code == 0, found.output
    unit = expected / np.linalg.norm(expected, axis=1, keepdims=True)
    cosine = unit @ unit[4]
    order = np.argsort(-cosine)[:3]
    assert [line.split("  ")[1] for line in found.output.splitlines()] == [names[i] for i in order]
    shown = [float(line.split("  ")[0]) for line in found.output.splitlines()]
    np.testing.assert_allclose(shown, cosine[order], atol=1e-4)

    listed = CliRunner().invoke(cli.app, ["search", names[4], "--in", str(out), "-k", "3", "--json"])
    assert [line["name"] for line in json.loads(listed.output)] == [names[i] for i in order]
    np.testing.assert_allclose(
        [line["cosine"] for line in json.loads(listed.output)], cosine[order], atol=1e-5
    )

    other = str(root / "serving" / "9")
    refused = CliRunner().invoke(cli.app, ["search", names[4], "--in", str(out), "--model", other])
    assert refused.exit_code == 2
    assert "were made by another encoder" in refused.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["embed", "IMAGES", "--root", "ROOT", "--out", "x.csv"], "ends in .parquet or .npz"),
        (["embed", "IMAGES", "--out", "x.npz"], "either --root"),
        (["embed", "IMAGES", "--root", "ROOT", "--model", "ROOT", "--out", "x.npz"], "either --root"),
        (
            ["embed", "IMAGES/notes.txt", "--root", "ROOT", "--out", "x.npz"],
            "notes.txt is no picture that is read",
        ),
        (["embed", "nowhere", "--root", "ROOT", "--out", "x.npz"], "There is no nowhere"),
        (["embed", "IMAGES", "--model", "IMAGES", "--out", "x.npz"], "`byol run` pushes one"),
        (["search", "x.png", "--in", "none.npz"], "`byol embed IMAGES --out none.npz` writes one"),
        (["serve", "--root", "nowhere"], "`byol run` pushes one"),
    ],
)
def test_wrong_input_is_one_line_and_status_2(pushed, folder, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    places = {"ROOT": str(pushed[0]), "IMAGES": str(folder)}
    given = [places.get(argument, argument).replace("IMAGES/", f"{folder}/") for argument in arguments]
    result = CliRunner().invoke(cli.app, given)
    assert result.exit_code == 2, result.output
    assert said in result.output
    assert len(result.output.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_files_that_cannot_be_written_or_read_are_named(tmp_path):
    table = embeddings.EmbeddingTable(("a",), np.ones((1, 2), np.float32), "model", "digest")
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.raises(ValueError, match=r"Cannot write .*x\.npz: .*\. Choose another --out\.$"):
        use_commands._save(table, file / "x.npz")
    for suffix in embeddings.SUFFIXES:
        path = file.with_suffix(suffix)
        path.write_text("not ours")
        with pytest.raises(
            ValueError, match=r"is not a file that `byol embed` wrote: .*[^.]\. Embed the images again"
        ):
            embeddings.load(path)


def test_where_tensorflow_serving_is_installed_it_serves(pushed, tmp_path, monkeypatch):
    root, _ = pushed
    executable = tmp_path / "tensorflow_model_server"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    started = []
    monkeypatch.setattr("os.execv", lambda path, arguments: started.append((path, arguments)))
    result = CliRunner().invoke(cli.app, ["serve", "--root", str(root), "--port", "8600", "--name", "mine"])
    assert result.exit_code == 0, result.output
    assert json.dumps(started) == json.dumps(
        [
            (
                str(executable),
                [
                    *[str(executable), "--rest_api_port=8600", "--port=0", "--model_name=mine"],
                    f"--model_base_path={root / 'serving'}",
                ],
            )
        ]
    )
    started.clear()
    refused = CliRunner().invoke(cli.app, ["serve", "--root", str(root), "--host", "127.0.0.1"])
    assert refused.exit_code == 2
    assert "listens on every interface, not on 127.0.0.1 alone. Give --builtin" in refused.output
    assert not started
    result = CliRunner().invoke(cli.app, ["serve", "--root", str(root), "--host", "::", "--port", "0"])
    assert result.exit_code == 0, result.output
    assert int(started[0][1][1].removeprefix("--rest_api_port=")) > 0
