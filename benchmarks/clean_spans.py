"""How often the AnomalyGate refuses a clean span by chance, and how often it catches a planted fault.

    .venv/bin/python -m benchmarks.clean_spans                                the embedded textures, 60,000 of them
    .venv/bin/python -m benchmarks.clean_spans --data FOLDER                  a folder of CIFAR-10 record files
    .venv/bin/python -m benchmarks.clean_spans --spans 10000 --faults 1000 --sizes 50/20 500/100

A clean span and the span before it are drawn at random from one pool, without a picture in common, so every finding
is chance. Each fault is planted into both splits of the later span. The checks are the gate's own, on rows without
pixels; ExampleValidator's limits are hard domains, which no sample crosses by chance. LabelCheck needs a served model:
its share is computed, not drawn, for permuted labels, with a tenth of which any model agrees.
"""

import argparse
import collections
import dataclasses

import numpy as np
from scipy import stats

from components.data import cifar10, data_checks, features, synthetic
from components.data.data_limits import DataLimits

SIZES = ("50/20", "100/40", "200/80", "500/100", "1000/200", "5000/1000")
_CLASSES = len(features.LABEL_NAMES)
_MINIMUM_AGREEMENT, _LABEL_CHECK_IMAGES = 0.5, 2000  # of the preset demo; components/gate/label_check.py


@dataclasses.dataclass(frozen=True)
class Pool:
    """Pictures to draw spans from; `figures` of them as they are, darker and with other channels.

    Attributes:
        hashes, labels: as in `data_checks.Rows`.
        figures: by "clean", "30% darker" and "shuffled channels".
    """

    hashes: np.ndarray
    labels: np.ndarray
    figures: dict[str, dict[str, np.ndarray]]

    @classmethod
    def of(cls, images, labels):
        """Computes what the checks see of `[n, 32, 32, 3]` uint8 images."""
        made = {
            "clean": lambda x: x,
            "30% darker": lambda x: (x * np.float32(0.7)).astype(np.uint8),
            "shuffled channels": lambda x: np.ascontiguousarray(x[..., [1, 2, 0]]),
        }
        figures = {name: _figures(images, change) for name, change in made.items()}
        return cls(np.array(features.content_hashes(images), "S32"), labels, figures)

    def rows(self, picked, labels=None, look="clean"):
        """The rows of these pictures."""
        labels = self.labels[picked] if labels is None else labels
        figures = {key: values[picked] for key, values in self.figures[look].items()}
        return data_checks.Rows(self.hashes[picked], labels, figures)


def _figures(images, change):
    """Figures of the changed images, a thousand at a time."""
    parts = [features.image_figures(change(images[i : i + 1000])) for i in range(0, len(images), 1000)]
    return {key: np.concatenate([part[key] for part in parts]) for key in features.IMAGE_FIGURES}


def missing_class(pool, picked, spare, rng):
    """One class is left out."""
    del spare
    return pool.rows(picked[pool.labels[picked] != rng.integers(_CLASSES)])


def permuted_labels(pool, picked, spare, rng):
    """Each picture has another one's label."""
    del spare
    return pool.rows(picked, rng.permutation(pool.labels[picked]))


def doubled_class(pool, picked, spare, rng):
    """One class comes twice as often; every picture is another one."""
    label = rng.integers(_CLASSES)
    more = spare[pool.labels[spare] == label][: (pool.labels[picked] == label).sum()]
    return pool.rows(np.concatenate([picked, more]))


def clean(pool, picked, spare, rng):
    """No fault."""
    del spare, rng
    return pool.rows(picked)


def darker(pool, picked, spare, rng):
    """Every picture has lost 30% of its light."""
    del spare, rng
    return pool.rows(picked, look="30% darker")


def shuffled_channels(pool, picked, spare, rng):
    """Green is read as red, blue as green, red as blue."""
    del spare, rng
    return pool.rows(picked, look="shuffled channels")


FAULTS = {
    "missing class": missing_class,
    "30% darker": darker,
    "permuted labels": permuted_labels,
    "shuffled channels": shuffled_channels,
    "doubled class": doubled_class,
}


def findings(pool, sizes, limits, rng, fault):
    """What the gate says of one span, drawn with the span before it; the kinds of the errors."""
    counts = [sizes["train"], sizes["test"], sizes["train"], sizes["test"]]
    drawn = rng.permutation(len(pool.labels))
    *parts, spare = np.split(drawn, np.cumsum(counts))
    earlier = {"train": pool.rows(parts[0]), "test": pool.rows(parts[1])}
    splits = {"train": fault(pool, parts[2], spare, rng), "test": fault(pool, parts[3], spare[::-1], rng)}
    found = data_checks.check_span(2, splits, limits)
    found += data_checks.check_against(2, splits, 1, earlier, limits)
    return {finding.kind for finding in found if finding.severity == data_checks.ERROR}


def measure(pool, size, spans, limits, rng, fault=clean):
    """Of so many spans, how many were refused, and for what."""
    train, test = map(int, size.split("/"))
    kinds: collections.Counter[str] = collections.Counter()
    refused = 0
    for _ in range(spans):
        found = findings(pool, {"train": train, "test": test}, limits, rng, fault)
        refused += bool(found)
        kinds.update(found)
    return refused, kinds


def label_check_catches(images, limits):
    """With which probability LabelCheck refuses permuted labels."""
    images = min(images, _LABEL_CHECK_IMAGES)
    limit = data_checks.lowest_agreement(images, _MINIMUM_AGREEMENT, limits.false_alarms)
    return stats.binom.cdf(np.ceil(limit * images) - 1, images, 1 / _CLASSES)


def main():
    """Prints a line a size: false alarms, then the share caught of each fault."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of CIFAR-10 record files; the embedded textures if left out")
    parser.add_argument("--spans", type=int, default=10_000, help="clean spans of each size")
    parser.add_argument("--faults", type=int, default=1000, help="spans of each size with each fault")
    parser.add_argument("--pool", type=int, default=60_000, help="embedded pictures to draw from")
    parser.add_argument("--sizes", nargs="+", default=SIZES, metavar="TRAIN/TEST")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, limits = np.random.default_rng(options.seed), DataLimits()
    pool = _pool(options, rng)
    print(f"| train/test | refused of {options.spans} clean | {' | '.join(FAULTS)} | LabelCheck, permuted |")
    print(f"|---|---|{'---|' * len(FAULTS)}---|")
    for size in options.sizes:
        refused, kinds = measure(pool, size, options.spans, limits, rng)
        told = f"{refused} ({', '.join(f'{kind} {n}' for kind, n in kinds.items())})" if refused else "0"
        caught = [
            f"{measure(pool, size, options.faults, limits, rng, fault)[0] / options.faults:.1%}"
            for fault in FAULTS.values()
        ]
        served = label_check_catches(int(size.split("/")[0]), limits)
        print(f"| {size} | {told} | {' | '.join(caught)} | {served:.1%} |", flush=True)


def _pool(options, rng):
    if options.data is None:
        return Pool.of(*synthetic.make_images(options.pool, rng))
    folder = cifar10.inspect_folder(options.data)
    read = [cifar10.decode_records(path.read_bytes()) for path in sorted(folder.path.glob("*.bin"))]
    images, labels = (np.concatenate(parts) for parts in zip(*read, strict=True))
    print(f"{len(labels)} pictures of {options.data}")
    return Pool.of(images, labels)


if __name__ == "__main__":
    main()
