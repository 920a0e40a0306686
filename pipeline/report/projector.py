"""Test embeddings for TensorBoard's embedding projector: vectors, labels, pictures and the file that names them."""

import json
import pathlib
from collections.abc import Mapping

import numpy as np
from PIL import Image

from components.data import features
from components.staging import write_atomically
from pipeline.report.pictures import TILE, sheet
from pipeline.root import Root

FOLDER = "projector"
TENSORS, METADATA, SPRITE = "tensors.tsv", "metadata.tsv", "sprite.png"
CONFIG_FILE = "projector_config.pbtxt"  # TensorBoard looks for this name in its log folder


def write(
    folder: pathlib.Path,
    images: np.ndarray,
    labels: np.ndarray,
    predicted: np.ndarray | None,
    vectors: np.ndarray,
    names: tuple[str, ...] = features.LABEL_NAMES,
) -> None:
    """Writes the files of one run.

    Args:
        folder: made if it does not exist.
        images: uint8 [m, height, width, 3].
        labels, predicted: [m] int64 class numbers; without labels the second is None, and there is no metadata.
        vectors: [m, d] float32.
        names: of the classes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(
        folder / TENSORS, "".join("\t".join(f"{x:.6g}" for x in row) + "\n" for row in vectors.tolist())
    )
    Image.fromarray(sheet(list(images))).save(folder / SPRITE)
    if predicted is None:
        return
    rows = [
        f"{names[label]}\t{names[said]}\t{'yes' if label == said else 'no'}\n"
        for label, said in zip(labels, predicted, strict=True)
    ]
    write_atomically(folder / METADATA, "label\tpredicted\tright\n" + "".join(rows))


def write_config(root: Root, named: Mapping[str, str]) -> int:
    """Names the embeddings of every run to TensorBoard; returns how many runs have some, the newest first.

    Args:
        root: whose runs.
        named: a run's folder -> what a person is shown for it; the folder itself where it is missing.
    """
    folders = sorted((path.parent for path in root.path.glob(f"runs/*/{FOLDER}/{TENSORS}")), reverse=True)
    entries = (_embedding(named.get(folder.parent.name, folder.parent.name), folder) for folder in folders)
    write_atomically(root.tensorboard / CONFIG_FILE, "".join(entries))
    return len(folders)


def _embedding(name: str, folder: pathlib.Path) -> str:
    """One entry of the projector's configuration in Protobuf's text format, whose strings are JSON's."""
    paths = {file: json.dumps(str(folder.absolute() / file)) for file in (TENSORS, METADATA, SPRITE)}
    return (
        "embeddings {\n"
        f"  tensor_name: {json.dumps(name)}\n"
        f"  tensor_path: {paths[TENSORS]}\n"
        + (f"  metadata_path: {paths[METADATA]}\n" if (folder / METADATA).exists() else "")
        + f"  sprite {{ image_path: {paths[SPRITE]} single_image_dim: {TILE} single_image_dim: {TILE} }}\n"
        "}\n"
    )
