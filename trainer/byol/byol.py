"""The BYOL model: two views, an online and a target network, one update (paper, section 3.1, algorithm 1)."""

import keras
from keras import ops

from trainer import networks, parallel
from trainer.byol import augmentations, losses, schedules
from trainer.byol.config import HeadConfig, ViewConfig


class BYOL(keras.Model):
    """Bootstrap Your Own Latent: `fit` on uint8 images without labels; the product is `online_encoder`.

    Input: [batch, height, width, 3] uint8. Call output: a dict of `prediction_1`, `prediction_2`, `target_1`,
    `target_2`, each [batch, output_dim] float32.

    The target's variables are kept out of the optimizer one by one and not by the layer's `trainable` flag: under
    that flag Keras' batch norm ignores `training` and uses its initial moments for ever.

    Args:
        encoder: the online encoder; a second one of the same architecture becomes the target.
        head: sizes of projector and predictor.
        views: recipes of view 1 and view 2.
        base_tau: tau at step 0.
        total_steps: updates of the whole training; the horizon of tau.
        seed: of heads and augmentations.
        precision: dtype policy of the heads, as `networks.build_head` takes it; the encoder has its own.
    """

    def __init__(
        self,
        encoder: keras.Model,
        head: HeadConfig,
        views: tuple[ViewConfig, ViewConfig],
        base_tau: float,
        total_steps: int,
        seed: int,
        precision: str = "float32",
    ) -> None:
        # The model's own policy is float32, so that nothing it passes on is cast on its way.
        super().__init__(name="byol", dtype="float32")
        dim, sizes = encoder.output_shape[-1], (head.hidden_dim, head.output_dim)
        out, kind = head.output_dim, (precision, head.layers)
        self.views = views
        self.base_tau = base_tau
        self.tau_schedule = "cosine"  # or "constant", as `schedules.target_tau` takes it
        self.total_steps = total_steps
        self.online_encoder = encoder
        self.online_projector = networks.build_head(dim, *sizes, seed + 1, "online_projector", *kind)
        self.predictor = networks.build_head(out, *sizes, seed + 2, "predictor", *kind)
        self.target_encoder = _copy(self.online_encoder, "target_encoder")
        self.target_projector = _copy(self.online_projector, "target_projector")
        self.seed_generator = keras.random.SeedGenerator(seed + 3)
        self.built = True

    def call(self, images, training: bool = False):
        """Draws the two views and returns the predictions and the target projections of each."""
        view_1, view_2 = (
            augmentations.make_view(images, self._draw(images), config) for config in self.views
        )
        return self.predict_views(view_1, view_2, training=training)

    def _draw(self, images):
        """The random numbers of one view, [batch, DRAWS]; replicas draw alike and keep each its own rows."""
        batch, parts = ops.shape(images)[0], parallel.replicas()
        draws = augmentations.draw(batch * parts, self.seed_generator)
        return draws if parts == 1 else parallel.own_rows(draws, batch)

    def predict_views(self, view_1, view_2, training: bool = False) -> dict:
        """Both networks on both views; batch norm sees one view at a time.

        Args:
            view_1, view_2: [batch, size, size, 3] float32 in [0, 1].
            training: whether batch norm uses, and learns from, the view's own statistics.
        """
        return {
            "prediction_1": self.predict_projection(view_1, training),
            "prediction_2": self.predict_projection(view_2, training),
            "target_1": self.target_projection(view_1, training),
            "target_2": self.target_projection(view_2, training),
        }

    def predict_projection(self, view, training: bool):
        """q(g(f(view))) by the online network: [batch, output_dim] float32."""
        representation = self.online_encoder(view, training=training)
        return self.predictor(self.online_projector(representation, training=training), training=training)

    def target_projection(self, view, training: bool):
        """sg(g'(f'(view))) by the target network: [batch, output_dim] float32, cut from the gradient."""
        representation = self.target_encoder(view, training=training)
        return ops.stop_gradient(self.target_projector(representation, training=training))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """Mean of the symmetrised loss over the batch, a float32 scalar in [0, 8]; a replica's is its share of it."""
        loss = ops.mean(losses.byol_loss(**y_pred))
        parts = parallel.replicas()
        return loss if parts == 1 else loss / parts

    def update_target(self) -> None:
        """target = tau * target + (1 - tau) * online, on weights alone; the target's moments are its own."""
        # The optimizer has counted the update already: the first one is step 0.
        tau = schedules.target_tau(
            self.optimizer.iterations - 1, self.total_steps, self.base_tau, self.tau_schedule
        )
        for online, target in self.target_pairs():
            target.assign(tau * target + (1.0 - tau) * online)

    def target_pairs(self) -> list[tuple[keras.Variable, keras.Variable]]:
        """(online, target) for each weight of encoder and projector; batch norm's moments are no weights."""
        return _weight_pairs(self.online_encoder, self.target_encoder) + _weight_pairs(
            self.online_projector, self.target_projector
        )

    def train_step(self, *args):
        """Keras' own train step of the present backend, followed by the target's update."""
        if keras.backend.backend() == "jax":
            return self._jax_train_step(*args)
        logs = super().train_step(*args)
        self.update_target()
        return logs

    def _jax_train_step(self, state, data):
        logs, state = super().train_step(state, data)
        trainable, non_trainable, optimizer, metrics = state
        mapping = [
            *zip(self.trainable_variables, trainable, strict=True),
            *zip(self.non_trainable_variables, non_trainable, strict=True),
            *zip(self.optimizer.variables, optimizer, strict=True),
        ]
        with keras.StatelessScope(state_mapping=mapping) as scope:
            self.update_target()
        updated = [scope.get_current_value(v) for v in self.non_trainable_variables]
        non_trainable = [old if new is None else new for new, old in zip(updated, non_trainable, strict=True)]
        return logs, (trainable, non_trainable, optimizer, metrics)


def _weight_pairs(online: keras.Model, target: keras.Model) -> list[tuple[keras.Variable, keras.Variable]]:
    """(online, target) by layer name and variable name, not by position: for what the optimizer trains online.

    Raises:
        ValueError: when the networks differ in a layer, a variable or a shape.
    """
    counterparts = {(layer.name, v.name): v for layer in target.layers for v in layer.weights}
    pairs = []
    for layer in online.layers:
        for variable in layer.trainable_variables:
            counterpart = counterparts.get((layer.name, variable.name))
            if counterpart is None or counterpart.shape != variable.shape:
                raise ValueError(
                    f"The target network {target.name!r} has no counterpart of {variable.path!r} with shape "
                    f"{tuple(variable.shape)}; it must be a copy of {online.name!r}."
                )
            pairs.append((variable, counterpart))
    return pairs


def _copy(network: keras.Model, name: str) -> keras.Model:
    """A second network of the same weights whose variables the optimizer never sees."""
    copy = keras.models.clone_model(network)
    copy.name = name
    copy.set_weights(network.get_weights())
    for variable in copy.variables:
        variable.trainable = False
    return copy
