"""Slices by image quality: the Evaluator's rows get a band for each figure, which TFMA slices by.

TFMA slices by equal values, and its SQL slices fail in the newer lane, so a figure such as brightness needs a feature
with few values. It is made here, where TFMA has parsed the rows, and not stored: bands can move without new Examples.
The Evaluator finds `custom_extractors` by `module_path="components.gate.quality_bands"`.
"""

import copy
from typing import Any

import apache_beam as beam
import numpy as np
import tensorflow_model_analysis as tfma
from tensorflow_model_analysis import constants
from tensorflow_model_analysis.extractors import extractor

from components.data import features

# About a fifth of CIFAR-10's test images lie below the lower edge of a band, and a fifth above the upper one; measured
# by the command in docs/decisions/0040-the-gate.md.
BRIGHTNESS_BAND = "brightness_band"
CONTRAST_BAND = "contrast_band"
BANDS: dict[str, tuple[str, tuple[tuple[str, float], ...], str]] = {
    # new feature: (figure, ((name below, edge), ...), name above all edges)
    BRIGHTNESS_BAND: (features.BRIGHTNESS, (("dark", 0.39), ("middle", 0.58)), "bright"),
    CONTRAST_BAND: (features.CONTRAST, (("low", 0.14), ("middle", 0.25)), "high"),
}

_STAGE = "AddQualityBands"


def band_names(band: str) -> tuple[str, ...]:
    """The values of one band's feature, from low to high."""
    _, edges, above = BANDS[band]
    return (*(name for name, _ in edges), above)


def bands_of(band: str, figures: np.ndarray) -> np.ndarray:
    """Names the band of each image.

    Args:
        band: a key of `BANDS`.
        figures: float `[batch]`, the figure that the band is about.

    Returns:
        `[batch]` of bytes; a figure on an edge belongs to the band above it.
    """
    _, edges, _ = BANDS[band]
    names = np.array([name.encode() for name in band_names(band)], dtype=object)
    return names[np.searchsorted([edge for _, edge in edges], figures, side="right")]


def custom_extractors(eval_shared_model: Any, eval_config: Any, tensor_adapter_config: Any) -> list[Any]:
    """TFMA's default extractors with the bands put between the parsed features and all that reads them."""
    first, *others = tfma.default_extractors(
        eval_shared_model=eval_shared_model,
        eval_config=eval_config,
        tensor_adapter_config=tensor_adapter_config,
    )
    bands = extractor.Extractor(stage_name=_STAGE, ptransform=_STAGE >> beam.Map(add_bands))
    return [first, bands, *others]


def add_bands(extracts: dict[str, Any]) -> dict[str, Any]:
    """Adds the bands to a batch of TFMA's extracts."""
    result = copy.copy(extracts)
    rows = dict(extracts[constants.FEATURES_KEY])
    for band, (figure, _, _) in BANDS.items():
        values = np.asarray(rows[figure], dtype=np.float32).reshape(-1)
        rows[band] = bands_of(band, values).reshape(-1, 1)
    result[constants.FEATURES_KEY] = rows
    return result
