"""`byol tensorboard` with the real TensorBoard: it finds the curves and shows the embeddings that were written."""

import http.client
import io
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from pipeline.report import curves, projector
from pipeline.root import Root

PROJECT = pathlib.Path(__file__).resolve().parents[3]


def _get(host: str, address: str) -> bytes:
    connection = http.client.HTTPConnection(host, timeout=60)
    connection.request("GET", address)
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    assert answer.status == 200, (address, data)
    return data


@pytest.fixture
def root(tmp_path):
    """One run with 40 embeddings, and a scalar as the Pretrainer writes it."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    vectors = generator.normal(size=(40, 6)).astype(np.float32)
    labels = np.arange(40) % 10
    projector.write(tmp_path / "runs" / "one" / projector.FOLDER, images, labels, (labels // 2) * 2, vectors)
    writer = tf.summary.create_file_writer(
        str(tmp_path / "tfx" / "Pretrainer" / "model_run" / "9" / "tensorboard")
    )
    with writer.as_default(step=1):
        tf.summary.scalar("pretraining/loss", 1.5)
    writer.close()
    return tmp_path, images, vectors


def test_tensorboard_shows_curves_and_embeddings(root):
    """Slow (about ten seconds): the real command and the real TensorBoard in a process of their own."""
    folder, images, vectors = root
    command = [sys.executable, "-m", "pipeline.cli", "tensorboard", "--root", str(folder), "--port", "0"]
    with subprocess.Popen(
        command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            said = iter(process.stdout.readline, "")
            found = next(match for line in said if (match := re.search(r"Curves: http://([^/]+)/", line)))
            host, projecting = found.group(1), "/data/plugin/projector"
            assert "Embeddings of 1 run: http://" in next(said)
            # Who opens the address that is told finds the tab there, and not only after a while.
            assert json.loads(_get(host, "/data/plugins_listing"))["projector"]["enabled"] is True
            assert "." in json.loads(_get(host, f"{projecting}/runs"))
            info = json.loads(_get(host, f"{projecting}/info?run=."))["embeddings"][0]
            assert info["tensorName"] == "one"
            assert info["tensorShape"] == [40, 6]
            tensor = np.frombuffer(_get(host, f"{projecting}/tensor?run=.&name=one"), np.float32)
            np.testing.assert_allclose(tensor.reshape(40, 6), vectors, rtol=1e-5)
            rows = _get(host, f"{projecting}/metadata?run=.&name=one").decode().splitlines()
            assert rows[:3] == [
                "label\tpredicted\tright",
                "airplane\tairplane\tyes",
                "automobile\tairplane\tno",
            ]
            assert len(rows) == 41
            sprite = np.asarray(
                Image.open(io.BytesIO(_get(host, f"{projecting}/sprite_image?run=.&name=one")))
            )
            np.testing.assert_array_equal(sprite[32:64, 32:64], images[33])
            tags = json.loads(_get(host, "/data/plugin/scalars/tags"))
            ((name, values),) = tags.items()
            assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d, not finished", name)
            assert "pretraining/loss" in values
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 0


def test_a_config_without_runs_is_empty_and_names_stay_whole(tmp_path):
    root = Root(tmp_path)
    root.tensorboard.mkdir()
    config = root.tensorboard / projector.CONFIG_FILE
    assert projector.write_config(root, {}) == 0
    assert config.read_text() == ""
    named = tmp_path / "runs" / 'a "quoted" run' / projector.FOLDER
    projector.write(
        named, np.zeros((1, 32, 32, 3), np.uint8), np.array([0]), np.array([0]), np.zeros((1, 2), np.float32)
    )
    assert projector.write_config(root, {}) == 1
    assert r'tensor_name: "a \"quoted\" run"' in config.read_text()


def test_a_port_that_is_taken_is_one_line(tmp_path, capsys):
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"{port}"):
            curves.serve(Root(tmp_path), "localhost", port, print)
    assert not capsys.readouterr().out
