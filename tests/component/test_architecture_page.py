"""The diagram of the architecture page is the pipeline that is built."""

import pathlib

from pipeline import pipeline
from pipeline.config import PRESETS
from pipeline.run.bindings import Earlier, bindings

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def test_the_diagram_names_every_node_and_no_other():
    diagram = (PROJECT / "docs" / "architecture.md").read_text().split("```")[1]
    locations = pipeline.Locations(
        "data", "tfx", "metadata.sqlite", "checkpoints", "serving", span=3, test="test"
    )
    earlier = Earlier(served_model=1, spans=(2,), window=(2, 3), warm_start=1)
    built = pipeline.create_pipeline(PRESETS["demo"], locations, [], bindings(earlier))
    nodes = {node.id for node in built.components}
    assert len(nodes) > 20
    assert {node for node in nodes if node not in diagram} == set()
    # Words in TFX's style that name no node.
    known = nodes | {"CIFAR", "Examples", "SavedModel", "BYOL", "TensorFlow", "TensorBoard", "Serving"}
    for mark in "[](),:;":
        diagram = diagram.replace(mark, " ")
    assert {word for word in diagram.split() if word[:1].isupper() and word.isalpha()} <= known
