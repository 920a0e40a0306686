"""A table of embeddings names a model; whose files those are is asked before anything of them is loaded."""

import pathlib

import numpy as np
import pytest

from components.serving import serving_folder
from pipeline.use import commands
from pipeline.use.embeddings import EmbeddingTable


def test_the_model_that_a_table_names_is_compared_before_it_is_loaded(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[pathlib.Path] = []
    monkeypatch.setattr(commands, "_load", lambda _, place: loaded.append(place))
    (tmp_path / "saved_model.pb").write_bytes(b"somebody's")
    table = EmbeddingTable(("a.png",), np.zeros((1, 4), np.float32), str(tmp_path), "sha256:" + "0" * 64)
    with pytest.raises(ValueError, match="made by another encoder"):
        commands._same_encoder(table, None, None)
    assert loaded == []
    own = EmbeddingTable(table.names, table.vectors, table.model, serving_folder.model_digest(tmp_path))
    commands._same_encoder(own, None, None)
    assert loaded == [tmp_path]
