"""A root's name is what TFX and Beam take it for."""

import pathlib

import pytest

from pipeline.root import Root


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gs://bucket/runs", "gs:// is no folder of this machine"),
        ("s3://bucket", "s3://"),
        ("run[1]", "pattern"),
    ],
)
def test_a_root_that_tfx_would_misread_is_refused_before_anything_is_made(
    tmp_path: pathlib.Path, name: str, words: str
) -> None:
    with pytest.raises((OSError, ValueError), match=words):
        Root(tmp_path / name).prepare()
    assert list(tmp_path.iterdir()) == []


def test_a_colon_inside_a_name_is_all_right(tmp_path: pathlib.Path) -> None:
    Root(tmp_path / "run-12:30:00").prepare()
    assert (tmp_path / "run-12:30:00" / "logs").is_dir()
