"""Cifar10ExampleGen: CIFAR-10 binary record files -> tf.Examples, one row an image.

Beam does the reading: each file is split into ranges of records, the ranges are spread over the workers, and
a worker holds one range at a time. Any file system that Beam knows will do. Rows carry raw pixels, which
decode in one batched op, and the image-quality figures by which StatisticsGen can see a picture
(docs/decisions/0010-what-a-row-holds.md).
"""

import dataclasses
import json
import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import tensorflow as tf
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems
from google.protobuf import wrappers_pb2
from tfx import types
from tfx.components.example_gen import write_split
from tfx.components.example_gen.base_example_gen_executor import BaseExampleGenExecutor
from tfx.components.example_gen.component import FileBasedExampleGen
from tfx.components.util import examples_utils
from tfx.dsl.components.base import executor_spec
from tfx.orchestration.data_types import RuntimeParameter
from tfx.proto import example_gen_pb2, range_config_pb2
from tfx.types import artifact_utils, standard_component_specs
from tfx.utils import proto_utils

from components.data import cifar10, dataset, example_files, features
from components.data.content_driver import ContentDriver
from components.data.dataset import CIFAR10, DataSet

FILES_PROPERTY = (
    "files"  # of the Examples: JSON, the SHA-256 of each file that was read by its name in the input folder
)
DATA_SET_KEY = "data_set"  # of the execution and of the Examples: `DataSet.to_json`
_PATTERNS = {features.TRAIN_SPLIT: cifar10.TRAIN_PATTERN, features.TEST_SPLIT: cifar10.TEST_PATTERN}
RECORDS_PER_RANGE = 1000  # 3 MB read at once by a worker; 60 ranges in CIFAR-10


class RecordRange(NamedTuple):
    """`size` records of the file at `path`, from record number `first` on."""

    path: str
    first: int
    size: int


def input_config(
    span_pattern: str = "", splits: Sequence[str] = (features.TRAIN_SPLIT, features.TEST_SPLIT)
) -> example_gen_pb2.Input:
    """The official files as two splits, given as they are: nothing is ever moved between train and test.

    Args:
        span_pattern: a folder pattern such as "span-{SPAN}" below the input folder; by default the files lie
            in the input folder itself. TFX takes the largest number unless it is given a range.
        splits: those to read.
    """
    prefix = f"{span_pattern.rstrip('/')}/" if span_pattern else ""
    return example_gen_pb2.Input(
        splits=[
            example_gen_pb2.Input.Split(name=split, pattern=prefix + _PATTERNS[split]) for split in splits
        ]
    )


def _as_they_are(splits: Sequence[str]) -> example_gen_pb2.Output | None:
    """Output splits that are the input splits; TFX cuts a lone one into "train" and "eval" unless it is told."""
    if len(splits) > 1:
        return None
    lone = example_gen_pb2.SplitConfig.Split(name=splits[0], hash_buckets=1)
    return example_gen_pb2.Output(split_config=example_gen_pb2.SplitConfig(splits=[lone]))


def record_ranges(
    pattern: str, records_per_range: int = RECORDS_PER_RANGE, record_bytes: int = cifar10.RECORD_BYTES
) -> list[RecordRange]:
    """Splits the files that match `pattern` into ranges, by their sizes alone.

    Raises:
        ValueError: no file matches, or a file is empty or does not hold a whole number of records.
    """
    files = sorted(FileSystems.match([pattern])[0].metadata_list, key=lambda file: file.path)
    if not files:
        raise ValueError(f"No file matches {pattern}. Expected CIFAR-10's binary version there.")
    ranges = []
    for file in files:
        records, rest = divmod(file.size_in_bytes, record_bytes)
        if rest or not records:
            raise ValueError(
                f"{file.path} has {file.size_in_bytes} bytes. Expected a positive multiple of "
                f"{record_bytes}: the file is empty, truncated or not in CIFAR-10's binary layout."
            )
        starts = range(0, records, records_per_range)
        ranges += [RecordRange(file.path, first, min(records_per_range, records - first)) for first in starts]
    return ranges


def read_range(record_range: RecordRange, data_set: DataSet = CIFAR10) -> tuple[np.ndarray, np.ndarray]:
    """Reads one range from any Beam file system.

    Returns:
        images `[size, height, width, 3]` uint8 and labels `[size]` int64, -1 for none.

    Raises:
        ValueError: the file shrank meanwhile, or a label is none.
    """
    wanted = record_range.size * data_set.record_bytes
    with FileSystems.open(record_range.path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        file.seek(record_range.first * data_set.record_bytes)
        data = file.read(wanted)
    if len(data) != wanted:
        raise ValueError(
            f"{record_range.path}: {len(data)} bytes from record {record_range.first} on, expected {wanted}. "
            "The file was changed while it was being read."
        )
    return cifar10.decode_records(data, record_range.path, record_range.first, data_set)


def serialized_examples(images: np.ndarray, labels: np.ndarray) -> Iterator[bytes]:
    """Yields one serialized tf.Example an image, with every feature that `components.data.features` names.

    Args:
        images: `[n, height, width, 3]` uint8.
        labels: `[n]` int64, -1 for none.
    """
    hashes = features.content_hashes(images)
    figures = {key: values.tolist() for key, values in features.image_figures(images).items()}
    for row, (label, content_hash) in enumerate(zip(labels.tolist(), hashes, strict=True)):
        example = tf.train.Example()
        feature = example.features.feature
        feature[features.IMAGE].bytes_list.value.append(images[row].tobytes())
        feature[features.LABEL].int64_list.value.append(label)
        feature[features.CONTENT_HASH].bytes_list.value.append(content_hash)
        for key, values in figures.items():
            feature[key].float_list.value.append(values[row])
        yield example.SerializeToString()


class _RangeToExamples(beam.DoFn):
    """RecordRange -> serialized tf.Examples."""

    def __init__(self, data_set: DataSet) -> None:
        super().__init__()
        self._data_set = data_set

    def process(self, element: RecordRange) -> Iterator[bytes]:
        yield from serialized_examples(*read_range(RecordRange(*element), self._data_set))


@beam.ptransform_fn
@beam.typehints.with_input_types(beam.Pipeline)
@beam.typehints.with_output_types(bytes)
def _ReadRecordFiles(  # noqa: N802 (a transform, named as Beam names them)
    pipeline: beam.Pipeline, exec_properties: dict[str, Any], split_pattern: str
) -> beam.pvalue.PCollection:
    """Reads one input split. Sizes are checked here, before any worker starts."""
    pattern = os.path.join(exec_properties[standard_component_specs.INPUT_BASE_KEY], split_pattern)
    data_set = dataset.from_json(exec_properties.get(DATA_SET_KEY) or "")
    folder, files = os.path.split(pattern)
    data_set = _described(folder, data_set, is_test=files == cifar10.TEST_PATTERN)
    # A range is as large in bytes, whatever the pictures' size.
    at_once = max(1, RECORDS_PER_RANGE * cifar10.RECORD_BYTES // data_set.record_bytes)
    return (
        pipeline
        | "Ranges" >> beam.Create(record_ranges(pattern, at_once, data_set.record_bytes))
        | "SpreadRanges" >> beam.Reshuffle()
        | "ReadRanges" >> beam.ParDo(_RangeToExamples(data_set))
    )


def _read_if_there(path: str) -> bytes:
    """A file of any Beam file system, a blank where it is empty; nothing where there is none."""
    if not FileSystems.exists(path):
        return b""
    with FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED) as file:
        return file.read() or b" "


def _described(folder: str, expected: DataSet, is_test: bool = False) -> DataSet:
    """The description beside the records, which must be the one that the pipeline was made for.

    Args:
        folder: of the records.
        expected: what the pipeline was made for.
        is_test: whether these records are a test split's, which the pipeline asks for its labels itself.

    Raises:
        ValueError: it is another data set, or not whole.
    """
    if FileSystems.exists(os.path.join(folder, dataset.UNFINISHED_FILE)):
        raise ValueError(dataset.unfinished(folder))
    text = _read_if_there(os.path.join(folder, dataset.FILE))
    names = b"" if text else _read_if_there(os.path.join(folder, dataset.NAMES_FILE))
    found = dataset.from_json(text) if text else dataset.from_names(names)
    compared = dataclasses.replace(found, unlabelled=found.unlabelled and not is_test)
    dataset.check_same(compared, expected, folder)
    return found


class Executor(BaseExampleGenExecutor):
    """Reads CIFAR-10's binary layout and writes plain TFRecords.

    TFX's own `Do` compresses with gzip, which makes pixels 11% smaller and costs nearly as much as all the rest of
    this component, and then again in each reader of its output. Readers, TFX's included, tell compression by the
    file name's end.
    """

    def GetInputSourceToExamplePTransform(self) -> beam.PTransform:  # noqa: N802
        """Returns the transform that reads one input split."""
        return _ReadRecordFiles

    def Do(  # noqa: N802
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Writes the splits to `Split-<name>/data_tfrecord-*-of-*` and names them in the Examples artifact, with the
        digests of the files that they came from.
        """
        self._log_startup(input_dict, output_dict, exec_properties)
        examples = output_dict[standard_component_specs.EXAMPLES_KEY]
        artifact = artifact_utils.get_single_instance(examples)
        files = example_files.digests(exec_properties)
        with self._make_beam_pipeline() as pipeline:
            splits = self.GenerateExamplesByBeam(pipeline, exec_properties)
            if _holds_out(exec_properties):
                splits |= _held_apart(splits[features.TRAIN_SPLIT])
            artifact.split_names = artifact_utils.encode_split_names(list(splits))
            for split, rows in splits.items():
                prefix = os.path.join(
                    artifact_utils.get_split_uri(examples, split), write_split.DEFAULT_FILE_NAME
                )
                _ = rows | f"Write[{split}]" >> beam.io.WriteToTFRecord(prefix)
        examples_utils.set_payload_format(artifact, example_gen_pb2.FORMAT_TF_EXAMPLE)
        if example_files.digests(exec_properties) != files:  # else they are those of the bytes that were read
            raise OSError(
                f"A file below {exec_properties[standard_component_specs.INPUT_BASE_KEY]} was changed while it was "
                "being read. Run the same command again when nobody writes there."
            )
        artifact.set_string_custom_property(FILES_PROPERTY, json.dumps(files))
        described = dataset.from_json(exec_properties.get(DATA_SET_KEY) or "")
        artifact.set_string_custom_property(DATA_SET_KEY, described.to_json())


def _holds_out(exec_properties: dict[str, Any]) -> bool:
    """Whether the component was made with `holdout`."""
    config, chosen = example_gen_pb2.CustomConfig(), wrappers_pb2.BoolValue()
    proto_utils.json_to_proto(exec_properties.get(standard_component_specs.CUSTOM_CONFIG_KEY) or "{}", config)
    return config.custom_config.Unpack(chosen) and chosen.value


def _held_apart(train: beam.pvalue.PCollection) -> dict[str, beam.pvalue.PCollection]:
    """The training split in two: what is left of it, and the fixed tenth that is held out."""
    kept, held = train | "HoldOut" >> beam.Partition(_is_held_out, 2)
    return {features.TRAIN_SPLIT: kept, features.HOLDOUT_SPLIT: held}


def _is_held_out(example: bytes, _: int) -> int:
    """The partition of a serialized tf.Example: 1 when its content hash says that it is held out."""
    feature = tf.train.Example.FromString(example).features.feature
    return int(features.is_holdout(feature[features.CONTENT_HASH].bytes_list.value[0]))


class Cifar10ExampleGen(FileBasedExampleGen):
    """Reads `data_batch*.bin` as the split "train" and `test_batch*.bin` as the split "test".

    Args:
        input_base: folder with the record files, or with the span folders; any Beam file system.
        span_pattern: "span-{SPAN}" for numbered span folders; by default the files lie in `input_base`
            itself.
        range_config: which span to take; by default the latest.
        holdout: writes the fixed tenth of the training images that `features.is_holdout` names as a third split,
            "holdout". The pipeline leaves it off: its trainers know those rows by their hash, and the last probe is
            fitted on all.
        splits: those to read; a test set of its own has no training images.
        data_set: what the records hold; what lies beside them must say the same.
    """

    EXECUTOR_SPEC = executor_spec.BeamExecutorSpec(Executor)
    DRIVER_CLASS = ContentDriver

    def __init__(
        self,
        input_base: str | RuntimeParameter,
        span_pattern: str = "",
        range_config: range_config_pb2.RangeConfig | None = None,
        holdout: bool = False,
        splits: Sequence[str] = (features.TRAIN_SPLIT, features.TEST_SPLIT),
        data_set: DataSet = CIFAR10,
    ) -> None:
        custom_config = None
        if holdout:
            custom_config = example_gen_pb2.CustomConfig()
            custom_config.custom_config.Pack(wrappers_pb2.BoolValue(value=True))
        super().__init__(
            input_base=input_base,
            input_config=input_config(span_pattern, splits),
            output_config=_as_they_are(splits),
            range_config=range_config,
            custom_config=custom_config,
        )
        self.exec_properties[DATA_SET_KEY] = data_set.to_json()
