"""The diagram of the architecture page is the pipeline that is built."""

import pathlib

from pipeline import pipeline
from pipeline.config import PRESETS

PROJECT = pathlib.Path(__file__).resolve().parents[2]


def test_the_diagram_names_every_node_and_no_other():
    diagram = (PROJECT / "docs" / "architecture.md").read_text().split("```")[1]
    locations = pipeline.Locations("data", "tfx", None, "checkpoints", "serving")
    nodes = {node.id for node in pipeline.create_pipeline(PRESETS["demo"], locations, []).components}
    assert len(nodes) > 15
    assert {node for node in nodes if node not in diagram} == set()
    # Names in TFX's style that are no nodes.
    known = nodes | {
        "CIFAR",
        "Examples",
        "SavedModel",
        "BYOL",
        "TensorFlow",
        "TensorBoard",
        "Serving",
        "VERSION",
    }
    words = {
        word
        for word in diagram.replace("(", " ").split()
        if word[:1].isupper() and word.strip(",:").isalpha()
    }
    assert {word.strip(",:") for word in words} <= known
