"""What StatisticsGen computes, and what it leaves alone."""

import pathlib

import tensorflow_data_validation as tfdv

SCHEMA_FILE = pathlib.Path(__file__).with_name("schema.pbtxt")


def statistics_options() -> tfdv.StatsOptions:
    """Full statistics of the label and the image-quality figures; of pixels and hashes presence and size only.

    The reviewed schema says so: `image_domain` switches off top values and unique counts, which over strings that
    are all different say nothing, and would make each of them an anomaly. The options carry the schema, so
    StatisticsGen must not be given it a second time.
    """
    return tfdv.StatsOptions(schema=tfdv.load_schema_text(str(SCHEMA_FILE)))
