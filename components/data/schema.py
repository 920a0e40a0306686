"""The reviewed schema of the rows, its labels those of a data set. No TensorFlow."""

import pathlib

from google.protobuf import text_format
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data import dataset, features
from components.data.dataset import CIFAR10, DataSet

SCHEMA_FILE = pathlib.Path(__file__).with_name("schema.pbtxt")


def schema_of(data_set: DataSet = CIFAR10, file: pathlib.Path = SCHEMA_FILE) -> schema_pb2.Schema:
    """The reviewed schema in `file`, its labels those of the data set."""
    schema = text_format.Parse(file.read_text(encoding="utf-8"), schema_pb2.Schema())
    label = next(feature for feature in schema.feature if feature.name == features.LABEL)
    label.int_domain.min = dataset.UNLABELLED if data_set.unlabelled else 0
    label.int_domain.max = data_set.classes - 1
    return schema


def schema_text(data_set: DataSet, file: pathlib.Path = SCHEMA_FILE) -> str:
    """`schema_of` in Protobuf's text format."""
    return text_format.MessageToString(schema_of(data_set, file))
