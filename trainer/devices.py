"""The accelerator's settings that must come before its first use."""

import tensorflow as tf


def allow_memory_growth() -> None:
    """Keeps TensorFlow from taking all of a GPU: in a local run the whole pipeline shares one process."""
    for gpu in tf.config.list_physical_devices("GPU"):
        tf.config.experimental.set_memory_growth(gpu, True)


def exact_float32() -> None:
    """Keeps matrix units from rounding float32 to 10 bits of mantissa: probe and served model must agree to 1e-5."""
    tf.config.experimental.enable_tensor_float_32_execution(False)
