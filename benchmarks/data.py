"""Seconds and peak memory of each data component, and the ratio to a plain loop that writes the same
TFRecords.

    .venv/bin/python -m benchmarks.data                     60,000 images of the embedded kind
    .venv/bin/python -m benchmarks.data --data FOLDER       a folder of CIFAR-10 record files, such as the official one
    .venv/bin/python -m benchmarks.data --images 600000     ten times as many
    .venv/bin/python -m benchmarks.data --workers 2         in two worker processes

Then the Trainers' input pipeline alone, on what Transform wrote: images/s of reading the split, of epochs from memory,
and of streamed epochs.

Imports are not counted. Memory is the resident set of this process and its children, sampled twenty times a
second.
"""

import argparse
import os
import pathlib
import tempfile
import threading
import time

import numpy as np
import tensorflow as tf
from tfx import v1 as tfx
from tfx.orchestration import metadata
from tfx.orchestration.local.local_dag_runner import LocalDagRunner

from components.data import cifar10, example_gen, features, synthetic
from components.data.anomaly_gate import AnomalyGate
from components.data.schema import SCHEMA_FILE
from components.data.statistics import statistics_options
from trainer import input_pipeline
from trainer.byol.config import PretrainingConfig
from trainer.byol.run_fn import image_source

_RUNNER = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"
_EPOCHS = 3
_DRAWN = 12_000  # images drawn; more are made from these by changing a pixel, which changes their hash


class Sampler(threading.Thread):
    """Notes what this process takes: `samples` is (time, resident bytes with children, own CPU seconds)
    triples.
    """

    def __init__(self):
        super().__init__(daemon=True)
        self.samples, self.finished = [], threading.Event()

    def run(self):
        """Samples until `finished` is set."""
        while not self.finished.wait(0.05):
            self.samples.append((time.time(), _resident_bytes(os.getpid()), time.process_time()))

    def peak(self, start, stop):
        """The largest resident set between two times, in MiB."""
        return max((size for when, size, _ in self.samples if start <= when <= stop), default=0) / 2**20

    def cpu(self, start, stop):
        """CPU seconds of this process alone between two times: what counts on a busy machine."""
        seconds = [cpu for when, _, cpu in self.samples if start <= when <= stop]
        return seconds[-1] - seconds[0] if seconds else 0.0


def _resident_bytes(pid):
    try:
        pages = int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except FileNotFoundError:  # it ended meanwhile
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE") + sum(_resident_bytes(child) for child in children)


def write_images(folder, count):
    """Writes `count` distinct images, a sixth of them as test split, in files of at most 10,000."""
    folder.mkdir()
    images, labels = synthetic.make_images(min(count, _DRAWN), np.random.default_rng(0))
    test = count // 6
    _write_files(folder, "test_batch", images, labels, range(test))
    _write_files(folder, "data_batch", images, labels, range(test, count))


def _write_files(folder, name, images, labels, numbers):
    for start in range(0, len(numbers), cifar10.RECORDS_PER_FILE):
        chosen = np.asarray(numbers[start : start + cifar10.RECORDS_PER_FILE])
        copies = images[chosen % len(images)]
        copies[:, 0, 0, :] = np.stack([chosen % 251, chosen // 251 % 251, chosen // 251**2], axis=1)
        path = folder / f"{name}_{start // cifar10.RECORDS_PER_FILE + 1}.bin"
        path.write_bytes(cifar10.encode_records(copies, labels[chosen % len(images)]))


def plain_loop(data, target):
    """Reads every record file and writes the TFRecords that Cifar10ExampleGen writes, a file at a time."""
    for path in sorted(pathlib.Path(data).glob("*_batch*.bin")):
        with tf.io.TFRecordWriter(f"{target}/{path.stem}") as writer:
            for example in example_gen.serialized_examples(*cifar10.read_records(path)):
                writer.write(example)


def data_nodes(data):
    """The data components of the pipeline, wired as there."""
    generator = example_gen.Cifar10ExampleGen(input_base=str(data))
    examples = generator.outputs["examples"]
    statistics = tfx.components.StatisticsGen(examples=examples, stats_options=statistics_options())
    schema = tfx.components.ImportSchemaGen(schema_file=str(SCHEMA_FILE))
    validator = tfx.components.ExampleValidator(
        statistics=statistics.outputs["statistics"], schema=schema.outputs["schema"]
    )
    gate = AnomalyGate(
        examples=examples,
        statistics=statistics.outputs["statistics"],
        anomalies=validator.outputs["anomalies"],
    )
    transform = tfx.components.Transform(
        examples=examples,
        schema=schema.outputs["schema"],
        preprocessing_fn="components.data.preprocessing.preprocessing_fn",
        splits_config=tfx.proto.SplitsConfig(
            analyze=[features.TRAIN_SPLIT], transform=[features.TRAIN_SPLIT]
        ),
        disable_statistics=True,
    )
    transform.add_upstream_node(gate)
    return [generator, statistics, schema, validator, gate, transform]


def run(data, root, workers):
    """Runs the nodes; returns (component, start, stop) in order of execution, times in seconds since the
    epoch.
    """
    connection = metadata.sqlite_metadata_connection_config(f"{root}/metadata.db")
    beam_args = [_RUNNER]
    if workers > 1:
        beam_args += ["--direct_running_mode=multi_processing", f"--direct_num_workers={workers}"]
    LocalDagRunner().run(
        tfx.dsl.Pipeline(
            pipeline_name="bench-data",
            pipeline_root=str(root),
            components=data_nodes(data),
            metadata_connection_config=connection,
            beam_pipeline_args=beam_args,
        )
    )
    with metadata.Metadata(connection) as handler:
        store = handler.store
        return [
            (
                store.get_execution_types_by_id([execution.type_id])[0].name.split(".")[-1],
                execution.create_time_since_epoch / 1000,
                execution.last_update_time_since_epoch / 1000,
            )
            for execution in sorted(store.get_executions(), key=lambda x: x.create_time_since_epoch)
        ]


def input_rates(root):
    """Images/s of (opening the split, epochs from memory, streamed epochs) on Transform's output."""
    (folder,) = pathlib.Path(root, "Transform/transformed_examples").glob("*/Split-train")
    patterns = [str(folder / "*")]
    began = time.perf_counter()
    held = input_pipeline.open_split(patterns, memory_bytes=2**50)
    count = len(held.rows.labels)
    opened = count / (time.perf_counter() - began)
    rates = []
    for source in (
        image_source(held),
        image_source(input_pipeline.ImagesOnDisk(tuple(sorted(map(str, folder.iterdir()))), held.rows)),
    ):
        began, seen = time.perf_counter(), 0
        for epoch in range(_EPOCHS):
            arguments = source.epoch(PretrainingConfig(), epoch, 0)
            batches = keras_batches(arguments)
            seen += sum(len(batch) for batch in batches)
        rates.append(seen / (time.perf_counter() - began))
    return opened, *rates


def keras_batches(arguments):
    """The batches that `fit` makes of what a source gives it."""
    x, size = arguments["x"], arguments.get("batch_size")
    if size is None:
        return x.as_numpy_iterator()
    return tf.data.Dataset.from_tensor_slices(x).batch(size).prefetch(tf.data.AUTOTUNE).as_numpy_iterator()


def main():
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of CIFAR-10 record files")
    parser.add_argument("--images", type=int, default=60_000)
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        if not options.data:
            write_images(work / "data", options.images)
        found = cifar10.inspect_folder(options.data or work / "data")
        images = found.train_records + found.test_records
        (work / "plain").mkdir()
        began = time.time()
        plain_loop(found.path, work / "plain")
        plain = time.time() - began

        sampler = Sampler()
        sampler.start()
        steps = run(found.path, work / "root", options.workers)
        sampler.finished.set()
        print(f"{images} images, {options.workers} worker(s), {os.cpu_count()} cores")
        print(f"{'component':<22}{'seconds':>9}{'CPU s':>9}{'images/s':>10}{'peak MiB':>10}")
        for name, start, stop in [*steps, ("all", steps[0][1], steps[-1][2])]:
            rate = images / max(stop - start, 1e-3)
            cpu, peak = sampler.cpu(start, stop), sampler.peak(start, stop)
            print(f"{name:<22}{stop - start:9.1f}{cpu:9.1f}{rate:10.0f}{peak:10.0f}")
        generator = steps[0][2] - steps[0][1]
        opened, memory, streamed = input_rates(work / "root")
        print(
            f"input pipeline, images/s: split read {opened:.0f}, epochs from memory {memory:.0f}, "
            f"streamed {streamed:.0f}"
        )
        print(f"plain loop {plain:.1f} s; Cifar10ExampleGen takes {generator / plain:.1f} times that")


if __name__ == "__main__":
    main()
