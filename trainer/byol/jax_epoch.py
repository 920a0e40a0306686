"""Many updates of a BYOL model in one program on JAX: images on the device, `lax.scan` around Keras' train step.

The numbers are those of `fit` step by step but for rounding (docs/decisions/0034-engines.md). JAX is imported
only where it trains.
"""

import weakref
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

# The images stay on the device if they take at most this share of its memory; otherwise each call brings its own.
RESIDENT_SHARE = 0.25


def applies() -> bool:
    """Whether epochs are scanned: on JAX, but not on CPUs, where XLA runs a loop's convolutions on one thread."""
    if keras.backend.backend() != "jax":
        return False
    import jax

    return jax.default_backend() != "cpu"


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
    program = _PROGRAMS.setdefault(model, _Program(model, images))
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
    """The compiled scan of one model; its images are put on the device once."""

    def __init__(self, model: keras.Model, images: np.ndarray) -> None:
        import jax

        self.images = images
        self.resident = jax.device_put(np.asarray(images)) if _fits(images) else None
        self.scan = jax.jit(scanned(model), donate_argnums=0)
        self.groups = (model.trainable_variables, model.non_trainable_variables, model.optimizer.variables)

    def run(self, order: np.ndarray) -> list[float]:
        """Makes the updates of [steps, batch] image numbers; the model's variables are the new ones afterwards."""
        images, places = self.resident, order
        if images is None:
            images, places = self.images[order.ravel()], np.arange(order.size).reshape(order.shape)
        state, losses = self.scan(
            tuple([v.value for v in group] for group in self.groups), images, places.astype(np.int32)
        )
        for group, values in zip(self.groups, state, strict=True):
            for variable, value in zip(group, values, strict=True):
                variable.assign(value)
        return [float(loss) for loss in np.asarray(losses)]


_PROGRAMS: weakref.WeakKeyDictionary[keras.Model, _Program] = weakref.WeakKeyDictionary()


def scanned(model: keras.Model) -> Callable[..., Any]:
    """The function (state, images, order) -> (state, losses [steps]) of a compiled model, for `jax.jit`.

    The state is the values of trainable, non-trainable and optimizer's variables. The metrics start anew in each step,
    so that its loss is its own and not the mean so far.
    """
    import jax

    metrics = [np.zeros(v.shape, v.dtype) for v in model.metrics_variables]

    def epoch(state, images, order):
        def step(state, places):
            logs, (*after, _) = model.train_step((*state, list(metrics)), (_divided(images[places]),))
            return tuple(after), logs["loss"]

        return jax.lax.scan(step, state, order)

    return epoch


def _divided(batch):
    """The batch divided among the devices where the training is (`trainer.parallel`)."""
    import jax

    distribution = keras.distribution.distribution()
    if distribution is None:
        return batch
    return jax.lax.with_sharding_constraint(batch, distribution.get_data_layout(batch.shape).backend_layout)


def _fits(images: np.ndarray) -> bool:
    """Whether the device has the room; one that does not tell, such as a CPU, has it."""
    import jax

    memory = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return memory is None or images.nbytes <= RESIDENT_SHARE * memory
