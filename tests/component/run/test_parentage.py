"""The served version leads to its models in a real store; one of another root is an error and never 'no baseline'."""

import shutil

import pytest

from components.serving import serving_folder
from pipeline.root import Root
from pipeline.run import parentage
from tests.component import small_root


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    root = Root(folder / "root")
    graph = small_root.run(root, folder / "data", small_root.Plan(span=1, window=(1,)))
    return root, graph


def test_nothing_is_served_before_the_first_push(tmp_path):
    assert parentage.of_served(tmp_path / "serving", tmp_path / "metadata.sqlite") is None
    assert parentage.stored_spans(tmp_path / "metadata.sqlite", "Cifar10ExampleGen") == set()


def test_the_served_version_leads_to_both_models(served):
    root, graph = served
    found = parentage.of_served(root.serving, root.metadata)
    made = {
        node: next(number for e in graph.executions.values() if e.node == node for number in e.writes)
        for node in ("LinearProbe", "Pretrainer")
    }
    (version,) = serving_folder.versions(root.serving)
    assert found == parentage.Parentage(version.number, False, made["LinearProbe"], made["Pretrainer"])
    assert parentage.stored_spans(root.metadata, "Cifar10ExampleGen") == {1}


def test_a_version_of_another_root_is_an_error(served, tmp_path):
    root, _ = served
    shutil.copytree(root.serving, tmp_path / "serving")
    with pytest.raises(ValueError, match="was not made in this root"):
        parentage.of_served(tmp_path / "serving", tmp_path / "metadata.sqlite")
