"""One training on several devices by the backend's own data parallelism: `keras.distribution` on JAX, `tf.distribute`
on TensorFlow. The result is that of one device on the same batch (docs/decisions/0031-data-parallelism.md).

On JAX the compiled step is written for the whole batch, so nothing in it knows of devices. On TensorFlow each replica
runs the step on its part, and what concerns the whole batch asks `replicas`.
"""

import contextlib
from collections.abc import Iterator

import keras


@contextlib.contextmanager
def divided(devices: int, batch_size: int) -> Iterator[contextlib.AbstractContextManager]:
    """Trainings inside divide each batch among `devices` devices; 0 takes every one of the best kind.

    What it yields is the scope in which their model is built, and not trained: networks applied in it would be applied
    once a replica. With one device both do nothing.

    Raises:
        ValueError: when there are fewer devices, when they cannot have equal parts of a batch, when those of some of
            several processes would do nothing, or on TensorFlow when they are several GPUs.
    """
    names = _devices()
    if devices > len(names):
        raise ValueError(
            f"pretraining.devices={devices} asks for more devices than there are: {', '.join(names)}. "
            "Lower it, or give 0 for all."
        )
    _check_all_train(devices, len(names))
    names = names[: devices or len(names)]
    if batch_size % len(names) != 0:
        raise ValueError(
            f"A batch of {batch_size} cannot be divided equally among {len(names)} devices; give "
            "pretraining.batch_size a multiple of them, or lower pretraining.devices."
        )
    if len(names) > 1 and keras.backend.backend() == "tensorflow" and all("GPU" in name for name in names):
        # A run that asks for them is refused before it starts (trainer/byol/choice.py); this is for all other callers.
        raise ValueError(
            f"TensorFlow trains on one GPU here; pretraining.devices={devices} asks for {len(names)}. Give "
            "pretraining.engine=jax, or pretraining.devices=1."
        )
    if len(names) == 1:
        yield contextlib.nullcontext()
    elif keras.backend.backend() == "jax":
        yield from _by_keras(names)
    else:
        import tensorflow as tf

        yield tf.distribute.MirroredStrategy(names).scope()


def _check_all_train(devices: int, there: int) -> None:
    if keras.backend.backend() != "jax" or devices in (0, there):
        return
    import jax

    if jax.process_count() > 1:
        raise ValueError(
            f"{jax.process_count()} processes train together on {there} devices; received pretraining.devices="
            f"{devices}. Give pretraining.devices=0, all of them."
        )


def _by_keras(names: list[str]) -> Iterator[contextlib.AbstractContextManager]:
    before = keras.distribution.distribution()
    keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
    try:
        yield contextlib.nullcontext()
    finally:
        keras.distribution.set_distribution(before)


def replicas() -> int:
    """In how many parts TensorFlow runs the step; 1 on JAX, and wherever nothing is divided."""
    if keras.backend.backend() != "tensorflow":
        return 1
    import tensorflow as tf

    return tf.distribute.get_strategy().num_replicas_in_sync


def own_rows(rows, batch):
    """This replica's part, [batch, ...], of what was made for the whole batch: [replicas * batch, ...]."""
    import tensorflow as tf

    context = tf.distribute.get_replica_context()
    return rows[context.replica_id_in_sync_group * batch :][:batch]


def _devices() -> list[str]:
    """The names of this machine's devices of the best kind, as the backend wants them."""
    if keras.backend.backend() == "jax":
        return list(keras.distribution.list_devices())
    import tensorflow as tf

    return [d.name for d in tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")]
