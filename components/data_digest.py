"""What data a model was made from, by content: the rows of each split, and a digest of their images."""

import hashlib

from tfx import types

from components.anomaly_gate import read_splits


def of_examples(examples: types.Artifact) -> dict[str, dict[str, int | str]]:
    """Reads the content hashes of every row.

    ExampleGen's own fingerprint is made of names and times of files: a copy of the same data has another one.

    Args:
        examples: what Cifar10ExampleGen wrote.

    Returns:
        For each split `rows`, their number, and `sha256`, hex digits over the sorted content hashes: the same for the
        same images, in whatever files and order they lie.

    Raises:
        components.anomaly_gate.DataAnomalyError: a split holds no row.
    """
    return {
        split: {
            "rows": len(rows.hashes),
            "sha256": hashlib.sha256(b"".join(sorted(rows.hashes.tolist()))).hexdigest(),
        }
        for split, rows in read_splits(examples).items()
    }
