"""What tells a healthy pretraining from a collapsed one; the loss does not."""

import dataclasses

import keras
import numpy as np

from trainer import representations
from trainer.byol import jax_epoch, jax_outputs

# A tenth of the spread of directions chosen at random: healthy trainings here stay at 0.4 and more.
COLLAPSE_SHARE = 0.1
# Fewer effective directions than two: the projections lie on a line. Untrained networks have 10 and more.
COLLAPSE_RANK = 2.0
MEASURED = ("knn_accuracy", "projection_spread", "projection_rank", "rank_me", "target_cosine")


class CollapseError(RuntimeError):
    """The projections have become (nearly) constant, or the training has left the finite numbers."""


@dataclasses.dataclass(frozen=True)
class MonitorImages:
    """Held-out training images, and training images with labels that they are compared with.

    Attributes:
        bank, bank_labels: [n, height, width, 3] uint8 and [n] int64, the kNN classifier's reference.
        queries, query_labels: [m, height, width, 3] uint8 and [m] int64, held out of the bank. Pretraining sees them
            as it sees every training image, without labels.
        classes: number of labels; 0 where there is none, and then no kNN accuracy.
    """

    bank: np.ndarray
    bank_labels: np.ndarray
    queries: np.ndarray
    query_labels: np.ndarray
    classes: int = 10


def projection_spread(projections: np.ndarray) -> float:
    """Standard deviation of the L2-normalised projections over its random-direction value, 1 / sqrt(dim).

    Args:
        projections: [n, dim] float32.

    Returns:
        About 1 for directions spread evenly, 0 for a constant output (SimSiam, Chen and He 2020, figure 2).
    """
    unit = representations.unit_rows(projections)
    return float(unit.std(axis=0).mean() * np.sqrt(unit.shape[1]))


def rank_me(representation: np.ndarray) -> float:
    """Effective rank of [n, dim] float32: exp of the entropy of the singular values (Garrido et al. 2022).

    Returns:
        Between 1 and min(n, dim); 0 for a matrix of zeros.
    """
    singular = np.linalg.svd(representation.astype(np.float64), compute_uv=False)
    total = singular.sum()
    if total == 0:
        return 0.0
    share = singular / total + 1e-7
    return float(np.exp(-(share * np.log(share)).sum()))


def measure(model: keras.Model, images: MonitorImages) -> dict[str, float]:
    """Measures a BYOL model on unaugmented images; all values are NaN when a network's outputs are not finite.

    Returns:
        `knn_accuracy` of the representations, where there are labels; `projection_spread`; `projection_rank`, the
        effective rank of the normalised projections about their mean; `rank_me` of the representations;
        `target_cosine`, the mean cosine of online and target projection of an image.
    """
    outputs = jax_outputs.outputs if jax_epoch.applies() else _outputs
    queries, online, target, predicted = outputs(model, images)
    measured = MEASURED if images.classes else tuple(name for name in MEASURED if name != "knn_accuracy")
    if predicted is None:
        return dict.fromkeys(measured, float("nan"))
    unit = representations.unit_rows(online)
    values = (
        float(np.mean(predicted == images.query_labels)),
        projection_spread(online),
        rank_me(unit - unit.mean(axis=0)),
        rank_me(queries),
        float((unit * representations.unit_rows(target)).sum(axis=1).mean()),
    )
    found = dict(zip(MEASURED, values, strict=True))
    return {name: found[name] for name in measured}


def _outputs(
    model: keras.Model, images: MonitorImages
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """The queries' representations, online and target projections, and the labels that kNN gives them; None for the
    labels where anything is not finite.
    """
    queries = representations.embed(model.online_encoder, images.queries)
    bank = representations.embed(model.online_encoder, images.bank)
    online = representations.apply(model.online_projector, queries)
    target = representations.apply(
        model.target_projector, representations.embed(model.target_encoder, images.queries)
    )
    predicted = None
    if all(np.isfinite(outputs).all() for outputs in (queries, bank, online, target)):
        predicted = representations.knn_predict(
            bank, images.bank_labels, queries, classes=max(1, images.classes)
        )
    return queries, online, target, predicted


def check(values: dict[str, float]) -> None:
    """Raises CollapseError when the values show NaN or collapse: no spread at all, or a single direction."""
    if not all(np.isfinite(v) for v in values.values()):
        raise CollapseError(f"Pretraining has left the finite numbers: {_shown(values)}. {_ADVICE}")
    spread = values.get("projection_spread", 1.0)
    if spread < COLLAPSE_SHARE:
        raise CollapseError(
            f"Pretraining has collapsed to a point: the projections' spread is {spread:.3f} of 1/sqrt(dim), "
            f"expected above {COLLAPSE_SHARE} ({_shown(values)}). {_ADVICE}"
        )
    rank = values.get("projection_rank", COLLAPSE_RANK)
    if rank < COLLAPSE_RANK:
        raise CollapseError(
            f"Pretraining has collapsed to a line: the projections' effective rank is {rank:.2f}, expected at "
            f"least {COLLAPSE_RANK} ({_shown(values)}). {_ADVICE}"
        )


_ADVICE = (
    "Lower the learning rate (pretraining.optimizer.base_learning_rate), lengthen the warm-up "
    "(pretraining.optimizer.warmup_steps) or raise pretraining.base_tau."
)


def _shown(values: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items())
