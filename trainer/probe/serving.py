"""The only SavedModel exporter: one model with every signature that is served, evaluated and pushed."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from components.data import features
from components.data.dataset import CIFAR10, DataSet
from components.data.preprocessing import decode_pixels
from components.serving import warm_up
from trainer.probe.image_decoding import decode_images
from trainer.probe.probe import LinearClassifier

SERVING = "serving_default"
EMBED_PIXELS = "embed_pixels"
CLASSIFY = "classify"
EVALUATE = "evaluate"
# A server builds what it needs for a batch's size when it first sees that size.
WARM_UP_ROWS = (1, 8)


class ServedEncoder(tf.Module):
    """The frozen online encoder, and the signatures of an exported model that answers with embeddings alone.

    Args:
        encoder: [batch, height, width, 3] float32 in [0, 1] -> [batch, d] float32, normalisation inside.
        data_set: gives the size of the pictures.
    """

    def __init__(self, encoder: keras.Model, data_set: DataSet = CIFAR10) -> None:
        super().__init__(name="served_encoder")
        # A Keras variable is saved as a copy of the TensorFlow variable that the graph reads. Python's loader puts the
        # two together again; TensorFlow Serving's restores the copy alone, and every request would fail. So the
        # variables themselves are tracked, and the model, behind a function, is not.
        self.encoder_variables = [variable.value for variable in encoder.variables]
        self.encode = lambda images: encoder(images, training=False)
        self.image_shape = data_set.shape
        pixels = tf.TensorSpec([None, *data_set.shape], tf.uint8, name="pixels")
        self.embed_pixels = tf.function(self._embed_pixels, input_signature=[pixels])

    def answers(self) -> dict[str, Any]:
        """The function of each signature, by its name."""
        return {SERVING: self.serving_default, EMBED_PIXELS: self.embed_pixels}

    def embed(self, pixels: tf.Tensor) -> tf.Tensor:
        """[batch, height, width, 3] uint8 -> [batch, d] float32, batch norm by its own moments."""
        # oneDNN's convolution gives an empty batch a wrong shape, so the network never sees one.
        batch = tf.shape(pixels)[0]
        padded = tf.pad(pixels, [[0, tf.maximum(1 - batch, 0)], [0, 0], [0, 0], [0, 0]])
        return self.encode(tf.cast(padded, tf.float32) / 255.0)[:batch]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def serving_default(self, image_bytes):
        """Encoded PNG or JPEG images of any size -> `embedding` [batch, d]."""
        return {"embedding": self.embed(decode_images(image_bytes, shape=self.image_shape))}

    def _embed_pixels(self, pixels):
        """Pixels as they are -> `embedding` [batch, d]."""
        return {"embedding": self.embed(pixels)}


class ServedClassifier(ServedEncoder):
    """The encoder with its linear probe.

    Args:
        encoder: as of `ServedEncoder`.
        classifier: the probe on its features.
        data_set: names of the classes, and the size of the pictures.
    """

    def __init__(
        self, encoder: keras.Model, classifier: LinearClassifier, data_set: DataSet = CIFAR10
    ) -> None:
        super().__init__(encoder, data_set)
        self.kernel = tf.Variable(classifier.kernel, trainable=False, name="kernel")
        self.bias = tf.Variable(classifier.bias, trainable=False, name="bias")
        self.label_names = tf.constant(data_set.label_names)

    def answers(self) -> dict[str, Any]:
        """Those of the encoder, and the classifier's."""
        return {**super().answers(), CLASSIFY: self.classify, EVALUATE: self.evaluate}

    def probabilities(self, embedding: tf.Tensor) -> tf.Tensor:
        """[batch, d] float32 -> [batch, classes] float32, rows summing to 1."""
        return tf.nn.softmax(tf.matmul(embedding, self.kernel) + self.bias)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image_bytes")])
    def classify(self, image_bytes):
        """Encoded images -> `probabilities` [batch, classes], `label` [batch], `label_names` [batch, classes]."""
        probabilities = self.probabilities(self.embed(decode_images(image_bytes, shape=self.image_shape)))
        return {
            "probabilities": probabilities,
            "label": tf.gather(self.label_names, tf.argmax(probabilities, axis=1)),
            "label_names": tf.tile(self.label_names[tf.newaxis], [tf.shape(probabilities)[0], 1]),
        }

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="examples")])
    def evaluate(self, examples):
        """Serialized raw Examples, as ExampleGen writes them -> `probabilities` [batch, classes]: TFMA's entry."""
        row = tf.io.parse_example(examples, {features.IMAGE: tf.io.FixedLenFeature([], tf.string)})
        return {
            "probabilities": self.probabilities(
                self.embed(decode_pixels(row[features.IMAGE], self.image_shape))
            )
        }


def export(
    encoder: keras.Model, classifier: LinearClassifier | None, path: str, data_set: DataSet = CIFAR10
) -> None:
    """Writes the SavedModel with its warm-up requests; it needs TensorFlow alone to be loaded.

    Args:
        encoder: the frozen one.
        classifier: of as many classes as the data set has; None for one without classes.
        path: the folder to write.
        data_set: names and size.

    Raises:
        ValueError: when the probe does not know as many classes as there are label names.
    """
    known = 0 if classifier is None else classifier.bias.shape[0]
    if known != data_set.classes:
        raise ValueError(
            f"The exported classifier needs {data_set.classes} classes; received {known}. "
            "Some class is missing from the training labels."
        )
    module = (
        ServedEncoder(encoder, data_set)
        if classifier is None
        else ServedClassifier(encoder, classifier, data_set)
    )
    signatures = module.answers()
    tf.saved_model.save(module, path, signatures=signatures)
    requests = warm_up_requests(data_set.shape)
    warm_up.write(path, [request for request in requests if request[0] in signatures])


def warm_up_requests(shape: tuple[int, int, int]) -> list[warm_up.Request]:
    """Requests that make each signature decode what it takes and run the network: noise, as PNG and as JPEG.

    Args:
        shape: of a picture: height, width, channels.
    """
    # Twice the size of a picture, so that resizing is warm, too.
    noise = np.random.default_rng(0).integers(0, 256, (2 * shape[0], 2 * shape[1], 3), dtype=np.uint8)
    encoded = [tf.io.encode_png(noise).numpy(), tf.io.encode_jpeg(noise).numpy()]
    pixels = np.resize(noise, shape)
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[pixels.tobytes()]))
    example = tf.train.Example(features=tf.train.Features(feature={features.IMAGE: feature}))
    requests: list[warm_up.Request] = []
    for rows in WARM_UP_ROWS:
        images = np.array((encoded * rows)[:rows], dtype=object)
        requests += [
            (SERVING, {"image_bytes": images}),
            (EMBED_PIXELS, {"pixels": np.stack([pixels] * rows)}),
            (CLASSIFY, {"image_bytes": images}),
            (EVALUATE, {"examples": np.array([example.SerializeToString()] * rows, dtype=object)}),
        ]
    return requests
