"""Edited code changes the cache key of the stages it is part of, and of no other."""

import pathlib
import shutil

import pytest

from pipeline import source_digest

PROJECT = pathlib.Path(__file__).resolve().parents[3]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A copy of the sources in the project's place."""
    for folder in ("components", "trainer"):
        shutil.copytree(PROJECT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(source_digest, "_ROOT", tmp_path)
    return tmp_path


def _digests():
    from pipeline.pipeline import SOURCES

    return {stage: source_digest.source_digest(sources) for stage, sources in SOURCES.items()}


def _changed(copy, path: str) -> set[str]:
    before = _digests()
    (copy / path).write_text((copy / path).read_text() + "\n# edited\n")
    after = _digests()
    return {stage for stage in before if before[stage] != after[stage]}


@pytest.mark.parametrize(
    ("path", "stages"),
    [
        ("trainer/probe/probe.py", {"LinearProbe", "RandomProbe"}),
        ("trainer/byol/losses.py", {"Pretrainer"}),
        ("trainer/networks.py", {"Pretrainer", "LinearProbe", "RandomProbe"}),
        ("components/data/example_gen.py", {"Cifar10ExampleGen", "TestExampleGen"}),
        ("components/serving/pusher.py", {"Pusher", "Verdict"}),
        ("components/serving/serving_requests.py", {"ServingCheck"}),
    ],
)
def test_an_edit_reaches_its_stages_alone(copy, path, stages):
    assert _changed(copy, path) == stages


def test_a_new_file_counts(copy):
    before = _digests()
    (copy / "trainer/byol/extra.py").write_text("")
    assert _digests()["Pretrainer"] != before["Pretrainer"]


def test_a_source_that_is_gone_is_an_error(copy):
    (copy / "components/serving/pusher.py").unlink()
    with pytest.raises(FileNotFoundError, match=r"components/serving/pusher\.py"):
        _digests()
