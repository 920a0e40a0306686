"""Whatever stands in a serving folder, the highest version that can be loaded answers."""

import gc
import shutil
import weakref

import pytest
import tensorflow as tf

from pipeline.use import version_follower
from pipeline.use.encoder import load_encoder
from tests.component import tiny_served


def _no_graph(folder):
    (folder / "saved_model.pb").write_bytes(b"no graph")


def _empty(folder):
    (folder / "saved_model.pb").write_bytes(b"")


def _cut_graph(folder):
    whole = (folder / "saved_model.pb").read_bytes()
    (folder / "saved_model.pb").write_bytes(whole[: len(whole) // 2])


def _cut_variables(folder):
    for path in (folder / "variables").glob("*.data*"):
        path.write_bytes(path.read_bytes()[:10])


def _no_variables(folder):
    shutil.rmtree(folder / "variables")


def _graph_is_a_folder(folder):
    (folder / "saved_model.pb").unlink()
    (folder / "saved_model.pb").mkdir()


DAMAGES = (_no_graph, _empty, _cut_graph, _cut_variables, _no_variables, _graph_is_a_folder)


@pytest.fixture(scope="module")
def versions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("serving")
    for number in (5, 6):
        tiny_served.write(folder, number, seed=number)
    return folder


@pytest.fixture
def folder(versions, tmp_path):
    """Version 5 is whole, 6 is a copy to be damaged."""
    return shutil.copytree(versions, tmp_path / "serving")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_version_is_passed_over_at_the_start_and_taken_once_it_is_mended(versions, folder, damage):
    damage(folder / "6")
    follower = version_follower.VersionFollower(folder)
    assert follower.current.number == 5
    follower.look()
    assert follower.current.number == 5
    shutil.rmtree(folder / "6")
    shutil.copytree(versions / "6", folder / "6", copy_function=shutil.copyfile)
    follower.look()
    assert follower.current.number == 6


@pytest.mark.parametrize(
    "error", [KeyError("x"), AttributeError("y"), IndexError(), MemoryError(), SystemError("z")]
)
def test_whatever_the_loader_raises_following_goes_on(folder, monkeypatch, error, caplog):
    shutil.move(folder / "6", folder.parent / "6")
    follower = version_follower.VersionFollower(folder)
    shutil.move(folder.parent / "6", folder / "6")
    real, tried = tf.saved_model.load, []

    def load(path):
        tried.append(path)
        if path.endswith("6"):
            raise error
        return real(path)

    monkeypatch.setattr(tf.saved_model, "load", load)
    follower.look()
    follower.look()
    assert follower.current.number == 5
    assert len(tried) == 1, "a version that did not change is not loaded over and over"
    assert "Version 6 is passed over" in caplog.text
    shutil.copytree(folder / "5", folder / "7")
    follower.look()
    assert follower.current.number == 7


def test_a_broken_record_stops_neither_the_server_nor_the_encoder(folder):
    (folder / "5" / "serving.json").write_text("{")
    assert version_follower.VersionFollower(folder).current.number == 6
    assert load_encoder(folder).path.name == "6"
    (folder / "6" / "serving.json").write_text("[]")
    assert version_follower.VersionFollower(folder).current.number == 6


def test_without_any_version_that_loads_the_message_names_them(folder):
    for number in ("5", "6"):
        _no_graph(folder / number)
    with pytest.raises(ValueError, match="received 5, 6, of which none can"):
        version_follower.VersionFollower(folder)


def test_a_model_is_freed_with_its_last_request(folder):
    """TensorFlow ties a loaded model in cycles: without a collection each version would stay for long."""
    shutil.move(folder / "6", folder.parent / "6")
    follower = version_follower.VersionFollower(folder)
    answering = follower.current
    graph = weakref.ref(answering.model._loaded.signatures["embed_pixels"].graph)
    gc.disable()
    try:
        shutil.move(folder.parent / "6", folder / "6")
        follower.look()
        assert follower.current.number == 6
        assert graph() is not None, "a request still uses it"
        del answering
        follower.look()
        assert graph() is None
    finally:
        gc.enable()
