"""The reviewed schema, against statistics of rows with and without faults."""

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
import pytest
import tensorflow_data_validation as tfdv
from tensorflow_metadata.proto.v0 import anomalies_pb2, schema_pb2

from components.data import features
from components.data.schema import SCHEMA_FILE
from components.data.statistics import statistics_options


@pytest.fixture(scope="module")
def schema():
    return tfdv.load_schema_text(str(SCHEMA_FILE))


def _columns():
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    return {
        features.IMAGE: [image.tobytes() for image in images],
        features.LABEL: np.arange(40) % 10,
        features.CONTENT_HASH: features.content_hashes(images),
        **features.image_figures(images),
    }


def _anomalies(columns, schema):
    statistics = tfdv.generate_statistics_from_dataframe(
        pd.DataFrame(columns), statistics_options(), n_jobs=1
    )
    return tfdv.validate_statistics(statistics, schema)


def test_good_rows_have_no_anomaly(schema):
    assert dict(_anomalies(_columns(), schema).anomaly_info) == {}


@pytest.mark.parametrize(
    ("feature", "value"),
    [
        (features.LABEL, 12),
        (features.LABEL, -1),
        (features.BRIGHTNESS, 1.5),
        (features.CONTRAST, 0.6),
        (features.SATURATED_SHARE, -0.1),
        (features.MEAN_BLUE, float("nan")),
    ],
)
def test_one_value_outside_its_domain_is_an_error(schema, feature, value):
    columns = _columns()
    columns[feature] = np.array(columns[feature])
    columns[feature][7] = value
    found = _anomalies(columns, schema).anomaly_info
    assert set(found) == {feature}
    assert found[feature].severity == anomalies_pb2.AnomalyInfo.ERROR


def test_a_missing_feature_is_an_error(schema):
    for feature in _columns():
        columns = _columns()
        del columns[feature]
        found = _anomalies(columns, schema).anomaly_info
        assert found[feature].severity == anomalies_pb2.AnomalyInfo.ERROR


def test_an_unknown_feature_is_an_anomaly(schema):
    assert "hue" in _anomalies({**_columns(), "hue": np.zeros(40)}, schema).anomaly_info


def test_the_schema_names_each_feature_once_with_its_domain(schema):
    by_name = {feature.name: feature for feature in schema.feature}
    assert set(by_name) == set(_columns())
    assert len(schema.feature) == len(by_name)
    assert (by_name[features.LABEL].int_domain.min, by_name[features.LABEL].int_domain.max) == (0, 9)
    for key in features.IMAGE_FIGURES:
        domain = by_name[key].float_domain
        assert (domain.min, domain.max) == (0, 0.5 if key == features.CONTRAST else 1)
        assert domain.disallow_nan
    for feature in schema.feature:
        assert feature.presence.min_fraction == 1
        assert feature.lifecycle_stage == schema_pb2.UNKNOWN_STAGE
