"""What TensorFlow says of itself does not reach whoever only wants embeddings or curves."""

import os
import sys
import types
import warnings

import pytest
import tensorboard
from typer.testing import CliRunner

from pipeline import cli
from pipeline.use import encoder


@pytest.mark.parametrize(("before", "after"), [(None, "2"), ("0", "0")])
def test_load_encoder_quiets_tensorflow_before_it_is_imported(tmp_path, monkeypatch, before, after):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", before or "x")
    if before is None:
        monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    (tmp_path / "saved_model.pb").touch()
    signature = types.SimpleNamespace(
        inputs={"pixels": types.SimpleNamespace(shape=(None, 32, 32, 3))},
        outputs={"embedding": types.SimpleNamespace(shape=(None, 4))},
    )
    seen = []

    def served_model(path):
        seen.append(os.environ.get("TF_CPP_MIN_LOG_LEVEL"))
        return types.SimpleNamespace(path=path, signatures={"embed_pixels": signature})

    fake = types.SimpleNamespace(ServedModel=served_model)
    monkeypatch.setitem(sys.modules, "pipeline.use.served_model", fake)
    assert encoder.load_encoder(tmp_path).dimension == 4
    assert seen == [after]


def test_tensorboard_starts_without_the_libraries_remarks(tmp_path, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "x")
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")
    started = []

    class Board:
        def configure(self, **_):
            started.append((os.environ["TF_CPP_MIN_LOG_LEVEL"], warnings.filters[0][0]))

        def launch(self):
            raise KeyboardInterrupt

    # Its modules are loaded when they are first asked, which would undo what is set in them.
    fake = types.SimpleNamespace(TensorBoard=Board, TensorBoardServerException=ValueError)
    monkeypatch.setattr(tensorboard, "program", fake)
    with warnings.catch_warnings():
        assert CliRunner().invoke(cli.app, ["tensorboard", "--root", str(tmp_path)]).exit_code == 0
    assert started == [("3", "ignore")]
