"""What data a model was made from and judged on, by content: the rows of each split, and a digest of their images."""

import hashlib
from collections.abc import Sequence
from typing import Any

from tfx import types

from components.data.anomaly_gate import read_splits, span_of

FINGERPRINT = "input_fingerprint"


def of_examples(examples: types.Artifact) -> dict[str, Any]:
    """Reads the content hashes of every row.

    ExampleGen's own fingerprint is made of names and times of files: a copy of the same data has another one.

    Args:
        examples: what Cifar10ExampleGen wrote.

    Returns:
        `span`; `input_fingerprint`, ExampleGen's; `splits`: for each `rows`, their number, and `sha256`, hex digits
        over the sorted content hashes: the same for the same images, in whatever files and order they lie.

    Raises:
        components.data.anomaly_gate.DataAnomalyError: a split holds no row.
    """
    return {
        "span": span_of(examples),
        FINGERPRINT: examples.get_string_custom_property(FINGERPRINT),
        "splits": {
            split: {
                "rows": len(rows.hashes),
                "sha256": hashlib.sha256(b"".join(sorted(rows.hashes.tolist()))).hexdigest(),
            }
            for split, rows in read_splits(examples).items()
        },
    }


def of_model(examples: Sequence[types.Artifact], test_examples: types.Artifact | None) -> dict[str, Any]:
    """The data of one model.

    Args:
        examples: of the spans it was trained on, at least one.
        test_examples: the test set that it was judged on; None if that is the test split of the only span.

    Returns:
        `spans`, of `of_examples`, the lowest number first, and `fixed_test`, the same of the test set, or None.
    """
    return {
        "spans": sorted((of_examples(artifact) for artifact in examples), key=lambda found: found["span"]),
        "fixed_test": None if test_examples is None else of_examples(test_examples),
    }
