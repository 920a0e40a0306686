"""Many updates of a BYOL model in one program on JAX: images on the device, `lax.scan` around Keras' train step.

The numbers are those of `fit` step by step but for rounding (docs/decisions/0034-engines.md). JAX is imported
only where it trains.
"""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from trainer.byol import processes

# The images stay on the device if they take at most this share of its memory; otherwise each call brings its own.
RESIDENT_SHARE = 0.25


def applies() -> bool:
    """Whether epochs are scanned: on JAX, but not on one process' CPUs, where XLA runs a loop's convolutions on one of
    them.
    """
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() != "cpu" or processes.several()


def fit(
    model: keras.Model, images: np.ndarray, order: np.ndarray, steps_per_call: int, callbacks: list
) -> float:
    """Trains on `images` in the given order, as `model.fit` does with the same callbacks.

    Args:
        model: compiled, its optimizer built.
        images: [n, height, width, 3] uint8.
        order: [steps, batch] int, the images of each update.
        steps_per_call: updates in one program; callbacks come, and losses are read, once a call.
        callbacks: their `on_train_begin` and `on_train_batch_end` are called; "loss" is the mean of the updates so far.

    Returns:
        The mean loss of all updates.
    """
    if model not in _PROGRAMS:
        _PROGRAMS[model] = _Program(model, images)
    program = _PROGRAMS[model]
    for callback in callbacks:
        callback.set_model(model)
        callback.on_train_begin({})
    losses: list[float] = []
    for first in range(0, len(order), steps_per_call):
        losses += program.run(order[first : first + steps_per_call])
        for callback in callbacks:
            callback.on_train_batch_end(len(losses) - 1, {"loss": float(np.mean(losses))})
    return float(np.mean(losses))


class _Program:
    """The compiled scan of one model; its images are put on the devices once."""

    def __init__(self, model: keras.Model, images: np.ndarray) -> None:
        import jax

        self.images = images
        self.resident = None
        if _fits(images):
            self.resident = jax.make_array_from_callback(images.shape, _sharding(), images.__getitem__)
        self.scan = jax.jit(scanned(model), donate_argnums=0, out_shardings=_sharding())
        self.groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)

    def run(self, order: np.ndarray) -> list[float]:
        """Makes the updates of [steps, batch] image numbers; the model's variables are the new ones afterwards."""
        brought = (
            (self._brought(order), None) if self.resident is None else (self.resident, order.astype(np.int32))
        )
        state, losses = self.scan(tuple([v.value for v in group] for group in self.groups), *brought)
        for group, values in zip(self.groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return [float(loss) for loss in np.asarray(losses)]

    def _brought(self, order: np.ndarray):
        """The images of these updates, [steps, batch, height, width, 3], on the devices whose share they are; each
        process reads those of its own.
        """
        import jax

        shape = self.images.shape[1:]

        def share(index):
            places = order[index[:2]]
            return self.images[places.ravel()].reshape(*places.shape, *shape)

        return jax.make_array_from_callback((*order.shape, *shape), _sharding(None, "batch"), share)


_PROGRAMS: weakref.WeakKeyDictionary[keras.Model, _Program] = weakref.WeakKeyDictionary()


def scanned(model: keras.Model) -> Callable[..., Any]:
    """The function (state, images, order) -> (state, losses [steps]) of a compiled model, for `jax.jit`.

    Without an order the images are those of each update: [steps, batch, height, width, 3].
    The state is the values of trainable, non-trainable and optimizer's variables. The metrics start anew in each step,
    so that its loss is its own and not the mean so far.
    """
    import jax

    metrics = [np.zeros(v.shape, v.dtype) for v in model.metrics_variables]

    def epoch(state, images, order):
        def step(state, batch):
            chosen = batch if order is None else images[batch]
            logs, (*after, _) = model.train_step((*state, list(metrics)), (_divided(chosen),))
            return tuple(after), logs["loss"]

        return jax.lax.scan(step, state, images if order is None else order)

    return epoch


def _divided(batch):
    """The batch divided among the devices where the training is (`trainer.parallel`)."""
    import jax

    if keras.distribution.distribution() is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, _sharding("batch"))


def _sharding(*axes: str | None):
    """How an array lies on the devices: the axis called "batch" divided among them, all else whole on each."""
    import jax

    distribution = keras.distribution.distribution()
    if distribution is None:
        return jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.sharding.NamedSharding(
        distribution.get_data_layout((1,)).backend_layout.mesh, jax.sharding.PartitionSpec(*axes)
    )


def _fits(images: np.ndarray) -> bool:
    """Whether the device has the room; one that does not tell, such as a CPU, has it."""
    import jax

    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return memory is None or images.nbytes <= RESIDENT_SHARE * memory
