"""What the report shows, computed from predictions and embeddings. NumPy and scikit-learn, no TensorFlow."""

import dataclasses
import math

import numpy as np

_Z95 = 1.959963984540054  # the 97.5% point of the normal distribution
CALIBRATION_BINS = 10
_PERPLEXITY = 30.0


@dataclasses.dataclass(frozen=True)
class Share:
    """A share of counts and its 95% interval, all in [0, 1].

    Attributes:
        right, total: the counts.
        lower, upper: Wilson's score interval (1927), which holds its level for small counts and near 0 and 1.
    """

    right: int
    total: int
    lower: float
    upper: float

    @property
    def value(self) -> float:
        """The share itself."""
        return self.right / self.total


def share(right: int, total: int) -> Share:
    """The share `right / total` with its interval.

    Raises:
        ValueError: for counts that no sample has.
    """
    if total < 1 or not 0 <= right <= total:
        raise ValueError(f"Expected 0 to total right ones of at least one; received {right} of {total}.")
    p, z2 = right / total, _Z95**2
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    reach = _Z95 / (1 + z2 / total) * math.sqrt(p * (1 - p) / total + z2 / (4 * total**2))
    lower = 0.0 if right == 0 else middle - reach
    upper = 1.0 if right == total else middle + reach
    return Share(right, total, lower, upper)


def confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """[classes, classes] int64: images by true class (row) and predicted class (column)."""
    matrix = np.zeros((classes, classes), np.int64)
    np.add.at(matrix, (labels, predicted), 1)
    return matrix


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """The images whose highest probability lies in one interval.

    Attributes:
        lower, upper: the interval.
        count: images in it.
        confidence: their mean highest probability; 0 without images.
        accuracy: the share of them that is right; 0 without images.
    """

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> list[CalibrationBin]:
    """Bins of equal width over the highest probability (Guo et al. 2017).

    Args:
        labels: [n] int64.
        probabilities: [n, classes] float32.
    """
    confidence = probabilities.max(1).astype(np.float64)
    right = probabilities.argmax(1) == labels
    place = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for number in range(CALIBRATION_BINS):
        inside = place == number
        count = int(inside.sum())
        bins.append(
            CalibrationBin(
                number / CALIBRATION_BINS,
                (number + 1) / CALIBRATION_BINS,
                count,
                float(confidence[inside].mean()) if count else 0.0,
                float(right[inside].mean()) if count else 0.0,
            )
        )
    return bins


def calibration_error(bins: list[CalibrationBin]) -> float:
    """The expected calibration error: the gap between confidence and accuracy, weighted by images."""
    total = sum(part.count for part in bins)
    return sum(part.count * abs(part.confidence - part.accuracy) for part in bins) / total


def worst_mistakes(labels: np.ndarray, probabilities: np.ndarray, count: int) -> np.ndarray:
    """Rows of the wrong predictions of which the model was surest, the surest first: [count or fewer] int64."""
    wrong = np.flatnonzero(probabilities.argmax(1) != labels)
    order = np.argsort(-probabilities[wrong].max(1), kind="stable")
    return wrong[order][:count]


def neighbors(vectors: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """[len(queries), count] int64: the rows nearest to each query row by cosine, itself left out.

    Args:
        vectors: [n, d] float32 with n above `count`.
        queries: row numbers.
        count: how many for each.
    """
    from sklearn.neighbors import NearestNeighbors

    index = NearestNeighbors(metric="cosine", algorithm="brute").fit(vectors)
    found = index.kneighbors(vectors[queries], n_neighbors=count + 1, return_distance=False)
    return np.stack(
        [[row for row in rows if row != query][:count] for query, rows in zip(queries, found, strict=True)]
    )


def spread_rows(total: int, count: int) -> np.ndarray:
    """`count` row numbers evenly over `total`, or all: the same sample in every report of a data set."""
    return np.arange(total) if total <= count else np.linspace(0, total - 1, count).astype(np.int64)


def one_of_each(labels: np.ndarray, classes: int) -> np.ndarray:
    """The first row of each class that occurs."""
    rows = (np.flatnonzero(labels == number) for number in range(classes))
    return np.array([found[0] for found in rows if len(found)], np.int64)


def flat_map(vectors: np.ndarray) -> np.ndarray:
    """Lays embeddings out in the plane so that near ones stay near: [n, 2] float64 within [0, 1].

    t-SNE (van der Maaten and Hinton 2008) over the unit vectors, whose Euclidean distance orders as the cosine does;
    seeded, so the same embeddings give the same map. Distances between far groups mean nothing.

    Args:
        vectors: [n, d] float32, n at least 5.
    """
    from sklearn.manifold import TSNE

    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    perplexity = min(_PERPLEXITY, (len(unit) - 1) / 3)
    placed = TSNE(init="pca", random_state=0, perplexity=perplexity).fit_transform(unit).astype(np.float64)
    low, high = placed.min(0), placed.max(0)
    return (placed - low) / np.maximum(high - low, 1e-12)


def separation(placed: np.ndarray, labels: np.ndarray, count: int = 10) -> float:
    """The share of each point's `count` nearest points on the map that have its label, averaged; in [0, 1]."""
    from sklearn.neighbors import NearestNeighbors

    count = min(count, len(placed) - 1)
    found = (
        NearestNeighbors(n_neighbors=count).fit(placed).kneighbors(return_distance=False)
    )  # without itself
    return float((labels[found] == labels[:, None]).mean())
