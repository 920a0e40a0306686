"""The two schedules of BYOL: the target's tau and the learning rate."""

import math

import keras
from keras import ops


def target_tau(step, total_steps: int, base_tau: float, schedule: str = "cosine"):
    """The target network's decay at `step` (paper, section 3.2): 1 - (1 - base) * (cos(pi k / K) + 1) / 2.

    Args:
        step: scalar number or tensor, 0-based index of the update just made; clipped to [0, total_steps].
        total_steps: K, updates of the whole training, not of this process.
        base_tau: value at step 0, in [0, 1].
        schedule: "cosine", or "constant" for `base_tau` at every step.

    Returns:
        Scalar float32: `base_tau` at step 0, rising to 1 at `total_steps`.
    """
    if schedule == "constant":
        return ops.convert_to_tensor(base_tau, "float32")
    progress = ops.clip(ops.cast(step, "float32") / float(total_steps), 0.0, 1.0)
    return 1.0 - (1.0 - base_tau) * (ops.cos(math.pi * progress) + 1.0) / 2.0


def learning_rate_schedule(
    base_learning_rate: float, batch_size: int, warmup_steps: int, total_steps: int, schedule: str = "cosine"
) -> keras.optimizers.schedules.LearningRateSchedule:
    """Linear warm-up from 0 to `base * batch_size / 256`, then cosine per step to 0 (paper, section 3.3).

    With the `schedule` "constant" it stays where the warm-up ends.
    """
    peak = base_learning_rate * batch_size / 256
    return keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else peak,
        decay_steps=total_steps - warmup_steps,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
        alpha=1.0 if schedule == "constant" else 0.0,
    )
