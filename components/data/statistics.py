"""What StatisticsGen computes, and what it leaves alone."""

import pathlib

import tensorflow_data_validation as tfdv
from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data import dataset, features
from components.data.dataset import CIFAR10, DataSet

SCHEMA_FILE = pathlib.Path(__file__).with_name("schema.pbtxt")


def schema_of(data_set: DataSet = CIFAR10) -> schema_pb2.Schema:
    """The reviewed schema, its labels those of the data set."""
    schema = tfdv.load_schema_text(str(SCHEMA_FILE))
    label = next(feature for feature in schema.feature if feature.name == features.LABEL)
    label.int_domain.min = dataset.UNLABELLED if data_set.unlabelled else 0
    label.int_domain.max = data_set.classes - 1
    return schema


def schema_text(data_set: DataSet) -> str:
    """`schema_of` in Protobuf's text format."""
    return text_format.MessageToString(schema_of(data_set))


def statistics_options(data_set: DataSet = CIFAR10) -> tfdv.StatsOptions:
    """Full statistics of the label and the image-quality figures; of pixels and hashes presence and size only.

    The reviewed schema says so: `image_domain` switches off top values and unique counts, which over strings that
    are all different say nothing, and would make each of them an anomaly. The options carry the schema, so
    StatisticsGen must not be given it a second time.
    """
    return tfdv.StatsOptions(schema=schema_of(data_set))
