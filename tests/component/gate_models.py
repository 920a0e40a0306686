"""Models whose right and wrong answers a test chooses image by image, and the Evaluator over them."""

import pathlib

import numpy as np
import tensorflow as tf
from tfx.components.evaluator import executor
from tfx.types import standard_artifacts
from tfx.utils import path_utils, proto_utils

from components.data import features
from components.serving import serving_check
from pipeline import eval_config

SHARES = (
    0.2,
    *(0.8 * (10 - distance) / 45 for distance in range(1, 10)),
)  # by distance from the chosen class
BEAM = ["--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"]


class ByteModel(tf.Module):
    """Predicts the class that is written in one byte of the image, so the image says how each model answers.

    Another byte / 255 is how sure it is of that class; the rest is shared by `SHARES`, the chosen class first, then the
    classes that follow it, so that no two are equally likely.
    """

    def __init__(self, position: int, scale: float = 1.0) -> None:
        super().__init__()
        self.position = position
        self.scale = tf.Variable(scale)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples):
        row = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        pixels = tf.io.decode_raw(row[features.IMAGE], tf.uint8)
        chosen = tf.cast(pixels[:, self.position], tf.int32)[:, tf.newaxis] % 10
        distance = (tf.range(10)[tf.newaxis] - chosen) % 10
        strength = tf.cast(pixels[:, self.position + 10], tf.float32)[:, tf.newaxis] / 255.0
        spread = (1.0 - strength) * tf.gather(tf.constant(SHARES, tf.float32), distance)
        return {"probabilities": self.scale * (tf.one_hot(chosen[:, 0], 10) * strength + spread)}


def artifact(kind, uri, identifier=0, **properties):
    """An artifact with custom properties, as MLMD would give it."""
    made = kind()
    made.uri, made.id = str(uri), identifier
    for name, value in properties.items():
        if isinstance(value, int):
            made.set_int_custom_property(name, value)
        else:
            made.set_string_custom_property(name, value)
    return made


def export(folder: pathlib.Path, position: int, identifier: int, scale: float = 1.0):
    """A `Model` artifact of a `ByteModel`."""
    module = ByteModel(position, scale)
    tf.saved_model.save(
        module, path_utils.serving_model_dir(str(folder)), signatures={"evaluate": module.evaluate}
    )
    return artifact(standard_artifacts.Model, folder, identifier)


def write_examples(folder: pathlib.Path, images: np.ndarray, labels: np.ndarray):
    """An `Examples` artifact whose test split holds the images, in two shards."""
    split = folder / f"Split-{features.TEST_SPLIT}"
    split.mkdir(parents=True)
    figures, hashes = features.image_figures(images), features.content_hashes(images)
    for shard in (0, 1):
        with tf.io.TFRecordWriter(str(split / f"data-{shard}.gz"), "GZIP") as writer:
            for row in range(shard, len(images), 2):
                writer.write(_example(images[row], labels[row], hashes[row], figures, row))
    made = artifact(
        standard_artifacts.Examples,
        folder,
        3,
        file_format="tfrecords_gzip",
        payload_format="FORMAT_TF_EXAMPLE",
        span=7,
    )
    made.split_names = f'["{features.TEST_SPLIT}"]'
    return made


def evaluate(folder: pathlib.Path, examples, model, baseline, config):
    """Runs TFX's Evaluator; returns its evaluation and its blessing."""
    context = executor.Executor.Context(beam_pipeline_args=BEAM, tmp_dir=str(folder / "tmp"), unique_id="1")
    evaluation = artifact(standard_artifacts.ModelEvaluation, folder / "evaluation", 20)
    blessing = artifact(standard_artifacts.ModelBlessing, folder / "blessing", 21)
    inputs = {"examples": [examples], "model": [model]}
    if baseline is not None:
        inputs["baseline_model"] = [baseline]
    executor.Executor(context).Do(
        inputs,
        {"evaluation": [evaluation], "blessing": [blessing]},
        {
            "eval_config": proto_utils.proto_to_json(config),
            "example_splits": f'["{features.TEST_SPLIT}"]',
            "module_path": eval_config.EXTRACTORS,
        },
    )
    return evaluation, blessing


def _example(image, label, content_hash, figures, row) -> bytes:
    feature = {
        features.IMAGE: serving_check._bytes_feature(image.tobytes()),
        features.CONTENT_HASH: serving_check._bytes_feature(content_hash),
        features.LABEL: tf.train.Feature(int64_list=tf.train.Int64List(value=[int(label)])),
    }
    for name, values in figures.items():
        feature[name] = tf.train.Feature(float_list=tf.train.FloatList(value=[values[row]]))
    return tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
