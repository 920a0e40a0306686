"""The optimizer of the online network, with the reference's weight-decay conventions."""

import keras

from trainer.byol.config import OptimizerConfig, PretrainingConfig
from trainer.byol.lars import LARS
from trainer.byol.schedules import learning_rate_schedule

MOMENTUM = 0.9


def build_optimizer(
    config: PretrainingConfig, model: keras.Model, total_steps: int
) -> keras.optimizers.Optimizer:
    """Returns the optimizer of `model`'s trainable variables, built, with biases and norms free of decay.

    Args:
        config: the pretraining's settings.
        model: the BYOL model; its target's variables are not trainable and so are never seen here.
        total_steps: updates of the whole training, the horizon of the learning rate.
    """
    settings = config.optimizer
    schedule = learning_rate_schedule(
        settings.base_learning_rate, config.batch_size, settings.warmup_steps, total_steps, settings.schedule
    )
    optimizer = _optimizer(settings, schedule)
    decayed = {id(v) for v in decayed_variables(model)}
    if settings.name != "lars":  # LARS excludes them by itself
        optimizer.exclude_from_weight_decay([v for v in model.trainable_variables if id(v) not in decayed])
    optimizer.build(model.trainable_variables)
    return optimizer


def decayed_variables(model: keras.Model) -> list[keras.Variable]:
    """What weight decay reaches. By shape, not by name: a kernel has two axes or more; a bias and batch norm's
    scale and offset have one.
    """
    return [v for v in model.trainable_variables if len(v.shape) > 1]


def _optimizer(settings: OptimizerConfig, schedule) -> keras.optimizers.Optimizer:
    if settings.name == "lars":
        return LARS(
            schedule,
            momentum=MOMENTUM,
            decay=settings.weight_decay,
            eta=settings.eta,
            clip_trust=settings.clip_trust,
        )
    if settings.name == "sgd":
        return keras.optimizers.SGD(schedule, momentum=MOMENTUM, weight_decay=settings.weight_decay)
    return keras.optimizers.AdamW(schedule, weight_decay=settings.weight_decay, epsilon=settings.epsilon)
