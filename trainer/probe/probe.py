"""The offline linear probe: multinomial logistic regression on the features of a frozen encoder."""

import dataclasses
import logging
from collections.abc import Sequence

import keras
import numpy as np

from trainer import representations
from trainer.probe.config import ProbeConfig

logger = logging.getLogger("byol.probe")


@dataclasses.dataclass(frozen=True)
class LinearClassifier:
    """Logits = features @ kernel + bias, on the encoder's own features.

    Attributes:
        kernel: [d, classes] float32.
        bias: [classes] float32.
    """

    kernel: np.ndarray
    bias: np.ndarray

    def logits(self, features: np.ndarray) -> np.ndarray:
        """[n, d] float32 -> [n, classes] float32."""
        return features @ self.kernel + self.bias

    def accuracy(self, features: np.ndarray, labels: np.ndarray) -> float:
        """Share of rows whose largest logit is the label's."""
        return float(np.mean(self.logits(features).argmax(1) == labels))


@dataclasses.dataclass(frozen=True)
class ProbeResult:
    """What the probe found.

    Attributes:
        classifier: fitted on every training image at the chosen rate.
        learning_rate, weight_decay: the chosen pair.
        holdout_accuracies: each candidate's accuracy on the held-out training images, in `candidates`' order.
        knn_accuracy: of weighted kNN on the same held-out images, all others as its bank.
    """

    classifier: LinearClassifier
    learning_rate: float
    weight_decay: float
    holdout_accuracies: tuple[float, ...]
    knn_accuracy: float


def fit_probe(
    features: np.ndarray,
    labels: np.ndarray,
    holdout: np.ndarray,
    config: ProbeConfig,
    cropped: Sequence[np.ndarray] = (),
    classes: int | None = None,
) -> ProbeResult:
    """Chooses rate and decay on held-out training images, then fits on all of them (paper, appendix C.1).

    Args:
        features: [n, d] float32, cached once without augmentation.
        labels: [n] int64.
        holdout: [n] bool, the rows on which rate and decay are chosen, on their whole images.
        config: the settings.
        cropped: [n, d] float32 each: features of the same images, cropped and flipped.
        classes: number of labels; by default the largest label and one.

    Raises:
        ValueError: when the features are not finite, or when nothing or everything is held out.
    """
    if not np.isfinite(features).all():
        raise ValueError(
            "The encoder gives features that are not finite; it cannot be probed. Pretrain it again."
        )
    if len(labels) == 0:
        raise ValueError(
            "The probe needs labelled training images; received none. Label some: a few of each class are enough."
        )
    if holdout.all() or not holdout.any():
        raise ValueError(
            f"The probe needs images on both sides of its hold-out; received {int(holdout.sum())} held out of "
            f"{len(holdout)}. Give more training images."
        )
    classes = int(labels.max()) + 1 if classes is None else classes
    kept_features, kept_labels = features[~holdout], labels[~holdout]
    kept_crops = [source[~holdout] for source in cropped]
    accuracies = []
    for rate, decay in config.candidates():
        classifier = _fit(kept_features, kept_labels, classes, rate, config, decay, kept_crops)
        accuracies.append(classifier.accuracy(features[holdout], labels[holdout]))
        shown = rate, decay, 100 * accuracies[-1]
        logger.info("probe  learning rate %g  weight decay %g  held-out accuracy %.1f%%", *shown)
    rate, decay = config.candidates()[int(np.argmax(accuracies))]
    predicted = representations.knn_predict(
        kept_features, kept_labels, features[holdout], config.knn_neighbors, config.knn_temperature, classes
    )
    return ProbeResult(
        classifier=_fit(features, labels, classes, rate, config, decay, cropped),
        learning_rate=rate,
        weight_decay=decay,
        holdout_accuracies=tuple(accuracies),
        knn_accuracy=float(np.mean(predicted == labels[holdout])),
    )


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    rate: float,
    config: ProbeConfig,
    decay: float = 0.0,
    cropped: Sequence[np.ndarray] = (),
) -> LinearClassifier:
    """Adam with a cosine rate on standardised features; the standardisation is folded into the weights returned."""
    mean, std = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    sources = [(source - mean) / std for source in (features, *cropped)]
    layer = keras.layers.Dense(classes, kernel_initializer="zeros")
    model = keras.Sequential([keras.Input((features.shape[1],)), layer])
    steps = -(-len(features) // config.batch_size) * config.epochs
    schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
    optimizer = keras.optimizers.Adam(schedule, weight_decay=decay or None)
    if decay:
        optimizer.exclude_from_weight_decay([layer.bias])
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=representations.compiles_with_xla(),
    )
    for epoch in range(config.epochs):
        order = np.random.default_rng((config.seed, epoch)).permutation(len(features))
        rows = sources[epoch % len(sources)][order]
        model.fit(rows, labels[order], batch_size=config.batch_size, shuffle=False, verbose=0)
    kernel, bias = layer.get_weights()
    kernel = kernel / std[:, None]
    return LinearClassifier(kernel.astype(np.float32), (bias - mean @ kernel).astype(np.float32))
