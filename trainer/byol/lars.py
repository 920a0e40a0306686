"""LARS (You et al. 2017, arXiv 1708.03888) with the conventions of BYOL's reference implementation."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="byol")
class LARS(keras.optimizers.Optimizer):
    """Momentum SGD whose rate adapts to each kernel's norm.

    For a variable `w` with gradient `g`, in the order of DeepMind's `byol/utils/optimizers.py`:

        g = g + decay * w
        g = eta * |w| / |g| * g        (factor 1 where either norm is 0)
        m = momentum * m + g
        w = w - learning_rate * m

    Variables of fewer than two axes (biases, batch norm's scale and offset) skip the first two lines. solo-learn's
    LARS divides by `|g| + decay * |w|` instead of `|g + decay * w|`: at its decay of 1e-5 a difference below the
    third digit of the factor.

    Args:
        learning_rate: float or schedule; the reference scales it by the batch and keeps it out of the momentum.
        momentum: in [0, 1).
        decay: coupled weight decay, at least 0. Not Keras' `weight_decay`, which is decoupled and would escape the
            adaptation.
        eta: trust coefficient, above 0.
        clip_trust: caps `eta * |w| / |g|` at the learning rate, by dividing it by the rate and cutting it at 1 (LARC;
            solo-learn's `clip_lr`). The schedule then only bounds each layer's own rate.
        name: of the optimizer.
    """

    def __init__(
        self,
        learning_rate,
        momentum: float = 0.9,
        decay: float = 0.0,
        eta: float = 1e-3,
        clip_trust: bool = False,
        name: str = "lars",
    ) -> None:
        super().__init__(learning_rate=learning_rate, name=name)
        if not 0.0 <= momentum < 1.0 or decay < 0.0 or eta <= 0.0:
            raise ValueError(
                f"LARS needs momentum in [0, 1), decay of at least 0 and eta above 0; received momentum={momentum}, "
                f"decay={decay}, eta={eta}."
            )
        self.momentum, self.decay, self.eta, self.clip_trust = momentum, decay, eta, clip_trust

    def build(self, variables) -> None:
        """Makes the momentum of each variable."""
        if self.built:
            return
        super().build(variables)
        self.momentums = self.add_optimizer_variables(variables, "momentum")

    def update_step(self, gradient, variable, learning_rate) -> None:
        """One variable's update, as the class says."""
        rate = ops.cast(learning_rate, variable.dtype)
        update = ops.cast(gradient, variable.dtype)
        if len(variable.shape) > 1:
            update = update + self.decay * ops.convert_to_tensor(variable)
            update = update * self._trust(variable, update, rate)
        slot = self.momentums[self._get_variable_index(variable)]
        self.assign(slot, self.momentum * slot + update)
        self.assign_sub(variable, rate * slot)

    def _trust(self, variable, update, rate):
        """eta * |w| / |g|, a scalar."""
        weight_norm = _norm(variable)
        update_norm = _norm(update)
        usable = ops.logical_and(weight_norm > 0.0, update_norm > 0.0)
        # The denominator is kept from 0 where the factor is not used, or its NaN would come through `where`.
        trust = self.eta * weight_norm / ops.where(usable, update_norm, ops.ones_like(update_norm))
        if self.clip_trust:
            trust = ops.minimum(trust / ops.maximum(rate, keras.config.epsilon()), 1.0)
        return ops.where(usable, trust, ops.ones_like(trust))

    def get_config(self) -> dict:
        """What `from_config` needs; the base class' arguments that this one does not take are left out."""
        config = super().get_config()
        kept = {name: config[name] for name in ("name", "learning_rate")}
        own = {name: getattr(self, name) for name in ("momentum", "decay", "eta", "clip_trust")}
        return kept | own


def _norm(x):
    """Euclidean norm over all axes, a float32 scalar."""
    return ops.sqrt(ops.sum(ops.square(x)))
