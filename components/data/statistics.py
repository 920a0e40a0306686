"""What StatisticsGen computes, and what it leaves alone."""

import tensorflow_data_validation as tfdv

from components.data.dataset import CIFAR10, DataSet
from components.data.schema import schema_of


def statistics_options(data_set: DataSet = CIFAR10) -> tfdv.StatsOptions:
    """Full statistics of the label and the image-quality figures; of pixels and hashes presence and size only.

    The reviewed schema says so: `image_domain` switches off top values and unique counts, which over strings that
    are all different say nothing, and would make each of them an anomaly. The options carry the schema, so
    StatisticsGen must not be given it a second time.
    """
    return tfdv.StatsOptions(schema=schema_of(data_set))
