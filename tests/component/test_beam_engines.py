"""The Beam components on engines other than the default: two processes, and the portable protocol."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_data_validation as tfdv
import tensorflow_model_analysis as tfma
from tfx import v1 as tfx

from components.data import features
from pipeline import eval_config
from pipeline.beam import beam_args
from pipeline.config import PRESETS, BeamConfig
from tests.component import data_plane
from tests.unit.trainer.conftest import TINY
from trainer import networks, representations
from trainer.probe import serving
from trainer.probe.probe import LinearClassifier


@pytest.fixture
def job_server():
    """The address of Beam's own Python job server, in another process: the protocol Flink and Spark speak."""
    command = [sys.executable, "-m", "tests.component.job_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """(folder, encoder, classifier): an untrained encoder with random weights on top, exported as the probe does it."""
    encoder = networks.build_encoder(TINY, np.full(3, 0.5), np.full(3, 0.25), seed=1)
    kernel = np.random.default_rng(2).normal(size=(TINY.widths[-1], 10)).astype(np.float32)
    classifier = LinearClassifier(kernel, np.zeros(10, np.float32))
    folder = tmp_path_factory.mktemp("model")
    serving.export(encoder, classifier, str(folder / "Format-Serving"))
    return folder, encoder, classifier


def _evaluation(nodes, model_folder, test_images):
    imported = tfx.dsl.Importer(
        source_uri=str(model_folder), artifact_type=tfx.types.standard_artifacts.Model
    ).with_id("Model")
    gate = dataclasses.replace(
        PRESETS["demo"].gate,
        minimum_accuracy=0.0,
        class_floors=(0.0,) * len(features.LABEL_NAMES),
        minimum_test_images=test_images,
        robustness_images=test_images,
    )
    return [
        imported,
        tfx.components.Evaluator(
            examples=nodes[0].outputs["examples"],
            example_splits=[features.TEST_SPLIT],
            model=imported.outputs["result"],
            eval_config=eval_config.gate(gate),
            module_path=eval_config.EXTRACTORS,
        ),
    ]


def _check_rows(root, splits):
    examples = data_plane.artifact(root, "Cifar10ExampleGen", "examples")
    transformed = data_plane.artifact(root, "Transform", "transformed_examples")
    for name, (images, _) in zip(("train", "test"), splits, strict=True):
        expected = sorted(features.content_hashes(images))
        for folder in (examples, transformed):
            rows = data_plane.read_examples(folder / f"Split-{name}")
            assert sorted(row[features.CONTENT_HASH] for row in rows) == expected


def _check_statistics(root, splits):
    folder = data_plane.artifact(root, "StatisticsGen", "statistics")
    for name, (images, _) in zip(("train", "test"), splits, strict=True):
        statistics = tfdv.load_stats_binary(str(folder / f"Split-{name}/FeatureStats.pb")).datasets[0]
        assert statistics.num_examples == len(images)


def _check_evaluation(root, model, images, labels):
    _, encoder, classifier = model
    result = tfma.load_eval_result(str(data_plane.artifact(root, "Evaluator", "evaluation")))
    overall = dict(result.slicing_metrics)[()][""][""]
    assert overall["example_count"]["doubleValue"] == len(images)
    expected = classifier.accuracy(representations.embed(encoder, images), labels)
    assert overall["sparse_categorical_accuracy"]["doubleValue"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("engine", ["processes", "portable"])
def test_no_row_is_lost_and_the_evaluation_is_the_same(engine, request, model, tmp_path):
    """Slow (workers start their own interpreters): ExampleGen, StatisticsGen, Transform and Evaluator."""
    splits = data_plane.demo_images(4)
    data_plane.write_folder(tmp_path / "data", *splits)
    endpoint = request.getfixturevalue("job_server") if engine == "portable" else ""
    nodes = data_plane.data_nodes(tmp_path / "data")
    nodes += _evaluation(nodes, model[0], test_images=len(splits[1][0]))
    arguments = beam_args(BeamConfig(engine=engine, workers=2, endpoint=endpoint))
    data_plane.run(tmp_path / "root", nodes, arguments)
    _check_rows(tmp_path / "root", splits)
    _check_statistics(tmp_path / "root", splits)
    _check_evaluation(tmp_path / "root", model, *splits[1])
