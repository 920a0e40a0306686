"""Encoders and the two-layer heads of BYOL, as plain Keras functional models that run on every backend."""

import keras
import numpy as np
from keras import ops

from trainer import parallel
from trainer.architecture import PLAIN_LAYERS, EncoderConfig, LayerConfig
from trainer.batch_norm import BatchNorm
from trainer.convolution import Convolution

_INITIALIZERS = {
    "he_normal": keras.initializers.HeNormal,
    "glorot_uniform": keras.initializers.GlorotUniform,
}


def build_encoder(
    config: EncoderConfig,
    channel_mean: np.ndarray,
    channel_std: np.ndarray,
    seed: int,
    name: str = "encoder",
    precision: str = "float32",
) -> keras.Model:
    """Returns the encoder f: [batch, height, width, 3] float32 in [0, 1] -> [batch, widths[-1]] float32.

    Normalisation by the training split's statistics is its first layer, so that no caller can forget it or use
    other values.

    Args:
        config: the architecture.
        channel_mean: [3] float, mean of each channel over the training pixels in [0, 1].
        channel_std: [3] float, standard deviation of the same pixels.
        seed: of the initial weights; two encoders of one seed are equal.
        name: of the Keras model.
        precision: dtype policy of everything between normalisation and pooling, which stay float32: "float32" or
            "mixed_bfloat16", whose variables and batch-norm statistics are float32.
    """
    build = _Layers(seed, precision, config.layers)
    images = keras.Input((None, None, 3), dtype="float32", name="images")
    x = keras.layers.Normalization(
        mean=np.asarray(channel_mean, np.float32),
        variance=np.square(np.asarray(channel_std, np.float32)),
        name="normalization",
        dtype="float32",
    )(images)
    for number, (width, stride) in enumerate(config.stem, start=1):
        name = "stem" if len(config.stem) == 1 else f"stem{number}"
        x = build.convolution(width, 3, stride, name)(x)
        x = build.relu(f"{name}_relu")(build.batch_norm(f"{name}_norm")(x))
    for stage, (width, blocks) in enumerate(zip(config.widths, config.blocks, strict=True)):
        for block in range(blocks):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _basic_block(x, width, stride, build, f"stage{stage + 1}_block{block + 1}")
    representation = keras.layers.GlobalAveragePooling2D(name="representation", dtype="float32")(x)
    return keras.Model(images, representation, name=name)


def build_head(
    input_dim: int,
    hidden_dim: int,
    output_dim: int,
    seed: int,
    name: str,
    precision: str = "float32",
    layers: LayerConfig = PLAIN_LAYERS,
) -> keras.Model:
    """Returns a projector or predictor: Dense, batch norm, ReLU, Dense (paper, section 3.3).

    Maps [batch, input_dim] float32 to [batch, output_dim] float32. The first Dense has no bias, since batch norm
    would cancel it; the output layer has no batch norm and is float32 under either `precision`.
    """
    build = _Layers(seed, precision, layers)
    inputs = keras.Input((input_dim,), dtype="float32", name="inputs")
    x = build.dense(hidden_dim, "hidden", use_bias=False)(inputs)
    x = build.relu("relu")(build.batch_norm("norm")(x))
    outputs = build.dense(output_dim, "output", dtype="float32")(x)
    return keras.Model(inputs, outputs, name=name)


def as_float32(network: keras.Model) -> keras.Model:
    """The same network and weights in Keras' own layers, every product in float32, on one device: what is probed and
    served.
    """

    def in_float32(layer: keras.layers.Layer) -> keras.layers.Layer:
        config = layer.get_config() | {"dtype": "float32"}
        if isinstance(layer, BatchNorm):
            return keras.layers.BatchNormalization.from_config(config | {"synchronized": False})
        if isinstance(layer, Convolution):
            return keras.layers.Conv2D.from_config(config)
        return type(layer).from_config(config)

    copy = keras.models.clone_model(network, clone_function=in_float32)
    copy.set_weights(network.get_weights())
    return copy


class _Layers:
    """Makes a network's layers: one seed for each initializer in turn, one dtype policy for all.

    The policy is given to each layer and never set globally: the pipeline shares its process with other networks.
    """

    def __init__(self, seed: int, precision: str, config: LayerConfig) -> None:
        self.initializers = _initializers(seed, config.initializer)
        self.precision = precision
        self.config = config

    def convolution(self, width: int, size: int, stride: int, name: str) -> keras.layers.Layer:
        return Convolution(
            width,
            size,
            strides=stride,
            padding="same",
            use_bias=False,
            kernel_initializer=next(self.initializers),
            name=name,
            dtype=self.precision,
        )

    def dense(
        self, width: int, name: str, use_bias: bool = True, dtype: str | None = None
    ) -> keras.layers.Layer:
        return keras.layers.Dense(
            width,
            use_bias=use_bias,
            kernel_initializer=next(self.initializers),
            name=name,
            dtype=dtype or self.precision,
        )

    def batch_norm(self, name: str) -> keras.layers.Layer:
        """Over all axes but the channels; float32 inside.

        Where a batch is divided among replicas, its statistics are those of the whole.
        """
        return BatchNorm(
            momentum=self.config.norm_momentum,
            epsilon=self.config.norm_epsilon,
            name=name,
            dtype=self.precision,
            synchronized=parallel.replicas() > 1,
        )

    def relu(self, name: str) -> keras.layers.Layer:
        return keras.layers.ReLU(name=name, dtype=self.precision)

    def add(self, name: str) -> keras.layers.Layer:
        return keras.layers.Add(name=name, dtype=self.precision)


def _initializers(seed: int, name: str):
    """Yields initializers of one kind, each with its own seed: Keras returns equal weights for equal seeds."""
    seeds = np.random.SeedSequence(seed)
    while True:
        (child,) = seeds.spawn(1)
        yield _INITIALIZERS[name](seed=int(child.generate_state(1)[0] >> 1))


def _basic_block(x, width: int, stride: int, build: _Layers, name: str):
    """Two 3x3 convolutions with a shortcut, 1x1 where the shape changes: [b, h, w, c] -> [b, h/s, w/s, width]."""
    shortcut = x
    if stride != 1 or x.shape[-1] != width:
        shortcut = build.convolution(width, 1, stride, f"{name}_shortcut")(x)
        shortcut = build.batch_norm(f"{name}_shortcut_norm")(shortcut)
    x = build.convolution(width, 3, stride, f"{name}_conv1")(x)
    x = build.relu(f"{name}_relu1")(build.batch_norm(f"{name}_norm1")(x))
    x = build.convolution(width, 3, 1, f"{name}_conv2")(x)
    x = build.batch_norm(f"{name}_norm2")(x)
    return build.relu(f"{name}_relu2")(build.add(f"{name}_add")([x, shortcut]))


def l2_normalize(x, epsilon: float = 1e-12):
    """Scales each row of `x` ([..., dim] float32) to unit length; a zero row stays zero."""
    square = ops.sum(ops.square(x), axis=-1, keepdims=True)
    return x * ops.rsqrt(ops.maximum(square, epsilon))
