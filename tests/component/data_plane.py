"""Runs the data components of the pipeline, and finds what they wrote."""

import pathlib

import numpy as np
import tensorflow as tf
from tfx import v1 as tfx
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.proto import range_config_pb2, transform_pb2

from components.data import cifar10, features, synthetic
from components.data.anomaly_gate import AnomalyGate
from components.data.dataset import CIFAR10
from components.data.example_gen import Cifar10ExampleGen
from components.data.schema import SCHEMA_FILE
from components.data.statistics import statistics_options
from pipeline.run import beam_package

IN_MEMORY = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]
SPANS = "span-{SPAN}"


def write_folder(folder, train, test, data_set=CIFAR10):
    """Writes (images, labels) pairs as record files."""
    folder.mkdir(parents=True)
    for name, (images, labels) in (("data_batch_1.bin", train), ("test_batch.bin", test)):
        (folder / name).write_bytes(cifar10.encode_records(images, labels, data_set))
    return folder


def demo_images(seed, train=600, test=200):
    """Two (images, labels) pairs, with no image in common."""
    rng = np.random.default_rng(seed)
    return synthetic.make_images(train, rng), synthetic.make_images(test, rng)


def data_nodes(
    data, span_pattern="", allow_anomalies=False, transform=True, data_set=CIFAR10, schema=SCHEMA_FILE
):
    """The row of data nodes, wired as in pipeline/pipeline.py."""
    example_gen = Cifar10ExampleGen(input_base=str(data), span_pattern=span_pattern, data_set=data_set)
    examples = example_gen.outputs["examples"]
    statistics_gen = tfx.components.StatisticsGen(
        examples=examples, stats_options=statistics_options(data_set)
    )
    statistics = statistics_gen.outputs["statistics"]
    schema = tfx.components.ImportSchemaGen(schema_file=str(schema))
    validator = tfx.components.ExampleValidator(statistics=statistics, schema=schema.outputs["schema"])
    spans = tfx.dsl.Resolver(
        strategy_class=tfx.dsl.experimental.SpanRangeStrategy,
        config={
            "range_config": range_config_pb2.RangeConfig(
                rolling_range=range_config_pb2.RollingRange(num_spans=2)
            )
        },
        examples=tfx.dsl.Channel(
            type=tfx.types.standard_artifacts.Examples, producer_component_id="Cifar10ExampleGen"
        ),
    ).with_id("LatestSpans")
    spans.add_upstream_node(example_gen)
    gate = AnomalyGate(
        examples=examples,
        statistics=statistics,
        anomalies=validator.outputs["anomalies"],
        earlier_examples=spans.outputs["examples"],
        allow_anomalies=allow_anomalies,
        data_set=data_set,
    )
    nodes = [example_gen, statistics_gen, schema, validator, spans, gate]
    if transform:
        nodes.append(
            tfx.components.Transform(
                examples=examples,
                schema=schema.outputs["schema"],
                preprocessing_fn="components.data.preprocessing.preprocessing_fn",
                custom_config={"data_set": data_set.to_json()},
                splits_config=transform_pb2.SplitsConfig(
                    analyze=[features.TRAIN_SPLIT], transform=[features.TRAIN_SPLIT, features.TEST_SPLIT]
                ),
                disable_statistics=True,
            )
        )
        nodes[-1].add_upstream_node(gate)
    return nodes


def run(root, nodes, beam_args=(), cache=False):
    """Runs nodes locally, with all artifacts below `root`."""
    pipeline = tfx.dsl.Pipeline(
        pipeline_name="data",
        pipeline_root=str(root),
        components=nodes,
        metadata_connection_config=metadata.sqlite_metadata_connection_config(f"{root}/metadata.db"),
        beam_pipeline_args=[*(beam_args or IN_MEMORY)],
        enable_cache=cache,
    )
    with beam_package.packed_in(pathlib.Path(root, ".beam")):
        LocalDagRunner().run(pipeline)


def artifact(root, node, key):
    """The folder of a node's latest artifact."""
    return max(pathlib.Path(root, node, key).iterdir(), key=lambda folder: int(folder.name))


def read_examples(folder):
    """All tf.Examples of a split's folder, parsed into a list of dictionaries."""
    files = sorted(map(str, folder.iterdir()))
    compression = "GZIP" if files[0].endswith(".gz") else ""
    rows = []
    for record in tf.data.TFRecordDataset(files, compression).as_numpy_iterator():
        feature = tf.train.Example.FromString(record).features.feature
        rows.append({key: _values(value) for key, value in feature.items()})
    return rows


def _values(feature):
    values = list(getattr(feature, feature.WhichOneof("kind")).value)
    return values[0] if len(values) == 1 else values
