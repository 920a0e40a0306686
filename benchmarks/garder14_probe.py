"""The linear evaluation of garder14/byol-tensorflow2 (linearevaluation.py), by which its accuracies were published."""

import keras
import numpy as np

from trainer import representations
from trainer.byol import augmentations
from trainer.byol.config import ViewConfig
from trainer.probe.probe import LinearClassifier

EPOCHS, BATCH = 50, 512
# The crop, flip and resize of its views, without their colours.
CROPS = ViewConfig(kind="garder14", flip=0.25, jitter=0.0, grey=0.0)


class _CroppedFeatures(keras.Model):
    """[batch, 32, 32, 3] uint8 -> [batch, d] float32: the frozen encoder on a crop, another one each call."""

    def __init__(self, encoder: keras.Model, seed: int) -> None:
        super().__init__(name="cropped_features", dtype="float32")
        self.encoder = encoder
        self.seed_generator = keras.random.SeedGenerator(seed)
        self.built = True

    def call(self, images):
        draws = augmentations.draw(keras.ops.shape(images)[0], self.seed_generator)
        return self.encoder(augmentations.make_view(images, draws, CROPS), training=False)


def fit(
    encoder: keras.Model, images: np.ndarray, labels: np.ndarray, seed: int, epochs: int = EPOCHS
) -> LinearClassifier:
    """Fits a linear layer on the features as they are, by Adam from 5e-2 down to 5e-4 by a square.

    Args:
        encoder: the frozen encoder, in float32.
        images: [n, 32, 32, 3] uint8, cropped anew in each epoch; what does not fill a batch at its end is left out.
        labels: [n] int64.
        seed: of crops, order and initial weights.
        epochs: passes over the images.
    """
    batch = min(BATCH, len(images))
    steps = len(images) // batch
    features = _CroppedFeatures(encoder, seed)
    features.compile(jit_compile=representations.compiles_with_xla())
    initial = keras.initializers.GlorotUniform(seed=seed)
    layer = keras.layers.Dense(int(labels.max()) + 1, kernel_initializer=initial)
    model = keras.Sequential([keras.Input((encoder.output_shape[-1],)), layer])
    rate = keras.optimizers.schedules.PolynomialDecay(5e-2, epochs * steps, 5e-4, power=2)
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=representations.compiles_with_xla(),
    )
    for epoch in range(epochs):
        order = np.random.default_rng((seed, epoch)).permutation(len(images))[: steps * batch]
        rows = [features.predict_on_batch(images[places]) for places in order.reshape(steps, batch)]
        model.fit(np.concatenate(rows), labels[order], batch_size=batch, shuffle=False, verbose=0)
    kernel, bias = layer.get_weights()
    return LinearClassifier(kernel, bias)
