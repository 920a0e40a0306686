import numpy as np
import pytest

from components.data import cifar10


@pytest.fixture
def record_folder(tmp_path):
    """A folder of 40 training images in two files and 20 test images, four and two of each class."""
    rng = np.random.default_rng(7)
    for name in ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"):
        images = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
        (tmp_path / name).write_bytes(cifar10.encode_records(images, np.arange(20) % 10))
    return tmp_path
