"""What the monitors look at, as one program on a GPU or TPU: representations, projections and the kNN classifier.

The host waits once, instead of once for every few images (docs/decisions/0034-engines.md). JAX is imported only where
it trains.
"""

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from trainer import representations

if TYPE_CHECKING:
    from trainer.byol.monitors import MonitorImages

# Images embedded, and queries compared with the bank, at a time.
CHUNK = 500
_PROGRAMS: weakref.WeakKeyDictionary[keras.Model, Any] = weakref.WeakKeyDictionary()


def outputs(
    model: keras.Model, images: "MonitorImages"
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray | None]:
    """As `monitors._outputs`, by `representations.embed`, `apply` and `knn_predict` in one program."""
    import jax

    if model not in _PROGRAMS:
        _PROGRAMS[model] = jax.jit(_program(model), static_argnames="classes")
    values = [_values(network) for network in _networks(model)]
    labels = images.bank_labels.astype(np.int32)
    found, finite = _PROGRAMS[model](
        values, images.bank, labels, images.queries, classes=max(1, images.classes)
    )
    queries, online, target, predicted = (np.asarray(array) for array in found)
    return queries, online, target, predicted.astype(np.int64) if finite else None


def _networks(model: keras.Model) -> tuple[keras.Model, ...]:
    return (model.online_encoder, model.online_projector, model.target_encoder, model.target_projector)


def _values(network: keras.Model) -> tuple[list, list]:
    return (
        [v.value for v in network.trainable_variables],
        [v.value for v in network.non_trainable_variables],
    )


def _program(model: keras.Model) -> Callable[..., Any]:
    """The function (values, bank, labels, queries, classes) -> ((queries, online, target, predicted), finite)."""
    import jax.numpy as jnp

    encoder, projector, target_encoder, target_projector = _networks(model)

    def run(values, bank, labels, queries, classes):
        online_values, head_values, target_values, target_head_values = values

        def embed(network, state, images):
            return _in_chunks(lambda x: _call(network, state, x.astype(jnp.float32) / 255.0), images)

        embedded = embed(encoder, online_values, queries)
        reference = embed(encoder, online_values, bank)
        online = _call(projector, head_values, embedded)
        target = _call(target_projector, target_head_values, embed(target_encoder, target_values, queries))
        predicted = _in_chunks(lambda rows: _knn(reference, labels, rows, classes), embedded)
        finite = jnp.stack([jnp.isfinite(x).all() for x in (embedded, reference, online, target)]).all()
        return (embedded, online, target, predicted), finite

    return run


def _call(network: keras.Model, state, inputs):
    return network.stateless_call(*state, inputs, training=False)[0].astype("float32")


def _in_chunks(function: Callable[[Any], Any], rows):
    """`function` on CHUNK rows at a time: [n, ...] -> [n, ...]. The last ones are filled up with zeros."""
    import jax
    import jax.numpy as jnp

    size = min(CHUNK, len(rows))
    chunks = -(-len(rows) // size)
    filled = jnp.pad(rows, [(0, chunks * size - len(rows))] + [(0, 0)] * (rows.ndim - 1))
    found = jax.lax.map(function, filled.reshape(chunks, size, *rows.shape[1:]))
    return found.reshape(chunks * size, *found.shape[2:])[: len(rows)]


def _knn(bank, labels, queries, classes: int):
    """`representations.knn_predict` with its own defaults: [n, d], [n] and [m, d] -> [m] int32."""
    import jax
    import jax.numpy as jnp

    def unit(x):
        return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)

    cosine = jnp.matmul(unit(queries), unit(bank).T, precision="highest")
    nearest, places = jax.lax.top_k(cosine, representations.knn_neighbors(len(bank), classes))
    votes = jnp.exp(nearest / representations.KNN_TEMPERATURE)[:, :, None] * jax.nn.one_hot(
        labels[places], classes
    )
    return votes.sum(axis=1).argmax(axis=1)
