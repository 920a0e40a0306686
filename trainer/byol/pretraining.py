"""Pretraining from arrays to a trained BYOL model: epochs, monitors, checkpoints. No TensorFlow, no TFX."""

import csv
import dataclasses
import hashlib
import json
import logging
import pathlib
import time
from collections.abc import Callable
from typing import Any, Protocol

import keras
import numpy as np

from trainer import networks, parallel, representations
from trainer.architecture import EncoderConfig
from trainer.byol import choice, jax_epoch, monitors, schedules
from trainer.byol.byol import BYOL
from trainer.byol.checkpoint import CheckpointFolder, Position
from trainer.byol.config import PretrainingConfig
from trainer.byol.optimizer import build_optimizer
from trainer.byol.warm_start import WarmStart

logger = logging.getLogger("byol.pretraining")
# A line of progress inside an epoch at most this often.
PROGRESS_SECONDS = 20.0


class ImageSource(Protocol):
    """What the Pretrainer sees: images and their normalisation, never a label."""

    @property
    def channel_mean(self) -> np.ndarray:
        """[3] float32, of the training pixels in [0, 1]."""

    @property
    def channel_std(self) -> np.ndarray:
        """[3] float32, likewise."""

    def __len__(self) -> int:
        """The number of images."""

    def digest(self) -> str:
        """Hex digest that tells these images from others."""

    def epoch(self, config: PretrainingConfig, epoch: int, first_step: int) -> dict[str, Any]:
        """Returns `fit`'s arguments for the whole batches of one epoch, from update `first_step` on.

        The order is a function of `config.seed` and `epoch` alone, so that a training resumed anywhere sees what the
        uninterrupted one would have seen.
        """


@dataclasses.dataclass(frozen=True)
class PretrainingImages:
    """An ImageSource in memory; epoch e comes in the order `np.random.default_rng((seed, e))` gives.

    Attributes:
        images: [n, 32, 32, 3] uint8.
        channel_mean, channel_std: [3] float32, of the training pixels in [0, 1].
    """

    images: np.ndarray
    channel_mean: np.ndarray
    channel_std: np.ndarray

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def digest(self) -> str:
        """Of all pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.images).data).hexdigest()

    def order(self, config: PretrainingConfig, epoch: int, first_step: int) -> np.ndarray:
        """Returns the image numbers of each update of the epoch from `first_step` on: [steps, batch] int64."""
        order = np.random.default_rng((config.seed, epoch)).permutation(len(self.images))
        last = len(self.images) // config.batch_size * config.batch_size
        return order[first_step * config.batch_size : last].reshape(-1, config.batch_size)

    def epoch(self, config: PretrainingConfig, epoch: int, first_step: int) -> dict[str, Any]:
        """Returns the epoch's images in their order, which `fit` cuts into batches.

        Of images in a file (a memory map) a batch at a time is read, so that memory does not grow with them.
        """
        order = self.order(config, epoch, first_step)
        if isinstance(self.images, np.memmap):
            return {"x": ((self.images[places],) for places in order), "steps_per_epoch": len(order)}
        chosen = order.ravel()
        return {"x": self.images[chosen], "batch_size": config.batch_size, "shuffle": False}


@dataclasses.dataclass(frozen=True)
class PretrainingResult:
    """A finished pretraining.

    Attributes:
        model: networks and optimizer as the last step left them.
        history: a dict an epoch: `epoch` (1-based), mean `loss`, `tau` and `learning_rate` of its last update,
            `images_per_second`, `seconds` and what `monitors.measure` gives.
        checkpoints: what the training wrote on its way.
    """

    model: BYOL
    history: list[dict[str, float]]
    checkpoints: CheckpointFolder

    def encoder(self) -> keras.Model:
        """The product: the online encoder with its own batch-norm moments, in float32."""
        return networks.as_float32(self.model.online_encoder)


def build_model(
    config: PretrainingConfig, encoder: EncoderConfig, data: ImageSource, kind: type[BYOL] = BYOL
) -> BYOL:
    """Returns the BYOL model with its optimizer, compiled for the present backend and device."""
    steps = config.total_steps(len(data))
    online = networks.build_encoder(
        encoder, data.channel_mean, data.channel_std, config.seed, precision=config.precision
    )
    model = kind(
        encoder=online,
        head=config.head,
        views=(config.view_1, config.view_2),
        base_tau=config.base_tau,
        total_steps=steps,
        seed=config.seed,
        precision=config.precision,
    )
    model.tau_schedule = config.tau_schedule
    model.compile(
        optimizer=build_optimizer(config, model, steps),
        jit_compile=representations.compiles_with_xla(),
        steps_per_execution=config.steps_per_execution,
    )
    return model


def pretrain(
    config: PretrainingConfig,
    encoder: EncoderConfig,
    data: ImageSource,
    monitor: monitors.MonitorImages | None,
    checkpoints: pathlib.Path,
    on_epoch: Callable[[dict[str, float]], None] | None = None,
    start: WarmStart | None = None,
) -> PretrainingResult:
    """Trains to the end, from the newest good checkpoint if there is one for the same settings and images.

    Args:
        config, encoder: what to train.
        data: the images.
        monitor: held-out images for the monitors; None turns them off.
        checkpoints: folder of this root's checkpoints; each training has its own inside, named by its identity.
        on_epoch: called with each finished epoch's values; a resumed training first repeats those before it.
        start: weights of an earlier training to start from; optimizer and both schedules start anew. None: random ones.

    Returns:
        The model, its history and the checkpoints, which the caller removes once the result is stored.

    Raises:
        monitors.CollapseError: as soon as a step's loss is NaN or an epoch shows collapse.
        ValueError: when `start` is of other networks.
    """
    config = choice.settled(config, keras.backend.backend())
    identity = _identity(config, encoder, data, start)
    folder = CheckpointFolder(checkpoints / identity[:16], identity, config.checkpoints_kept)
    with parallel.divided(config.devices, config.batch_size) as scope:
        with scope:
            model = build_model(config, encoder, data)
        if start is not None:
            start.apply(model)
        history = _train(model, config, data, monitor, folder, on_epoch or _nothing)
    return PretrainingResult(model, history, folder)


def _train(
    model: BYOL,
    config: PretrainingConfig,
    data: ImageSource,
    monitor: monitors.MonitorImages | None,
    folder: CheckpointFolder,
    on_epoch: Callable[[dict[str, float]], None],
) -> list[dict[str, float]]:
    """Trains from the newest checkpoint to the end and returns every epoch's values."""
    position, history = folder.restore(model)
    for values in history:
        on_epoch(values)
    if position != Position(0, 0):
        logger.info("Resuming pretraining at epoch %d, step %d.", position.epoch + 1, position.step)
    epoch_steps = len(data) // config.batch_size
    clock = _Clock(config, epoch_steps, position)
    writer = _CheckpointWriter(folder, config.checkpoint_minutes, history, epoch_steps)
    while position.epoch < config.epochs:
        callbacks = [_FiniteLoss(), clock, writer.at(position)]
        values = _run_epoch(model, config, data, position, callbacks)
        if monitor is not None and _is_measured(config, position.epoch):
            values |= monitors.measure(model, monitor)
        history.append(values)
        on_epoch(values)  # before the check: the logs show what stopped the training
        monitors.check(values)
        logger.info("%s", clock.describe(values))
        position = Position(position.epoch + 1, 0)
        if writer.due() or position.epoch == config.epochs:
            folder.save(model, position, history)
    return history


def _is_measured(config: PretrainingConfig, epoch: int) -> bool:
    """Whether the monitors measure after this epoch, 0-based."""
    return (epoch + 1) % config.monitor_epochs == 0 or epoch + 1 == config.epochs


def _nothing(values: dict[str, float]) -> None:
    """What is done with an epoch's values when nobody asked for them."""


def write_history(history: list[dict[str, float]], path: pathlib.Path) -> None:
    """Writes the epochs' values as CSV, a row an epoch; what an epoch has not measured stays empty."""
    names = list(dict.fromkeys(name for values in history for name in values))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=names, restval="")
        writer.writeheader()
        writer.writerows(history)


def _run_epoch(
    model: BYOL, config: PretrainingConfig, data: ImageSource, position: Position, callbacks: list
) -> dict[str, float]:
    """Trains from `position` to the end of its epoch and returns the epoch's values."""
    epoch_steps = len(data) // config.batch_size
    rest = epoch_steps - position.step
    started = time.perf_counter()
    loss_of_rest = _fit(model, config, data, position, callbacks)
    seconds = time.perf_counter() - started
    loss = (position.loss * position.step + loss_of_rest * rest) / epoch_steps
    last_step = int(keras.ops.convert_to_numpy(model.optimizer.iterations)) - 1
    rate = schedules.learning_rate_schedule(
        config.optimizer.base_learning_rate,
        config.batch_size,
        config.optimizer.warmup_steps,
        model.total_steps,
        config.optimizer.schedule,
    )
    return {
        "epoch": position.epoch + 1,
        "loss": float(loss),
        "tau": float(
            schedules.target_tau(last_step, model.total_steps, config.base_tau, config.tau_schedule)
        ),
        "learning_rate": float(rate(last_step)),
        "images_per_second": rest * config.batch_size / seconds,
        "seconds": seconds,
    }


def _fit(
    model: BYOL, config: PretrainingConfig, data: ImageSource, position: Position, callbacks: list
) -> float:
    """Makes the updates from `position` to the end of its epoch and returns their mean loss."""
    if jax_epoch.applies() and isinstance(data, PretrainingImages):
        order = data.order(config, position.epoch, position.step)
        return jax_epoch.fit(model, data.images, order, config.steps_per_execution, callbacks)
    batches = data.epoch(config, position.epoch, position.step)
    return model.fit(**batches, verbose=0, callbacks=callbacks).history["loss"][0]


def _identity(
    config: PretrainingConfig, encoder: EncoderConfig, data: ImageSource, start: WarmStart | None = None
) -> str:
    """Digest of everything that decides the weights, by which checkpoints are told apart."""
    settings = dataclasses.asdict(config)
    for name in (
        "checkpoint_minutes",
        "checkpoints_kept",
        "monitor_images",
        "monitor_epochs",
        "steps_per_execution",
        "engine",
    ):
        del settings[name]
    settings["encoder"] = dataclasses.asdict(encoder)
    settings["backend"] = keras.backend.backend()
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    digest.update(f"{type(data).__name__} {data.digest()}".encode())
    for array in (data.channel_mean, data.channel_std):
        digest.update(np.ascontiguousarray(array).tobytes())
    if start is not None:
        digest.update(start.digest().encode())
    return digest.hexdigest()


class _FiniteLoss(keras.callbacks.Callback):
    """Stops a training that has left the finite numbers at once, before it is written into a checkpoint."""

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        monitors.check({"loss": (logs or {}).get("loss", 0.0)})


class _Clock(keras.callbacks.Callback):
    """Progress inside an epoch, and the time left."""

    def __init__(self, config: PretrainingConfig, epoch_steps: int, position: Position) -> None:
        super().__init__()
        self.batch_size, self.epochs, self.epoch_steps = config.batch_size, config.epochs, epoch_steps
        self.first = position.epoch * epoch_steps + position.step
        self.done = self.before = self.first
        self.started = self.told = time.perf_counter()

    def on_train_begin(self, logs: dict | None = None) -> None:
        self.before = self.done

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        # `batch` is the last of those in this call, beyond the epoch's end where the call was cut short.
        self.done = min(self.before + batch + 1, (self.before // self.epoch_steps + 1) * self.epoch_steps)
        now = time.perf_counter()
        if now - self.told < PROGRESS_SECONDS or self.done % self.epoch_steps == 0:
            return
        self.told = now
        epoch, step = divmod(self.done, self.epoch_steps)
        logger.info(
            "epoch %d/%d  %3.0f%%  loss %.3f  %.0f images/s  %s left",
            epoch + 1,
            self.epochs,
            100 * step / self.epoch_steps,
            (logs or {}).get("loss", float("nan")),
            (self.done - self.first) * self.batch_size / (now - self.started),
            self.left(),
        )

    def left(self) -> str:
        """Time to the end at the mean speed so far, monitors included."""
        elapsed = time.perf_counter() - self.started
        seconds = elapsed / max(self.done - self.first, 1) * (self.epochs * self.epoch_steps - self.done)
        return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"

    def describe(self, values: dict[str, float]) -> str:
        """One finished epoch in one line."""
        self.told = time.perf_counter()
        line = f"epoch {values['epoch']}/{self.epochs}  loss {values['loss']:.3f}  tau {values['tau']:.4f}"
        if "knn_accuracy" in values:
            line += f"  kNN {values['knn_accuracy']:.1%}"
        if "projection_spread" in values:
            line += f"  spread {values['projection_spread']:.2f}"
        whole = (self.done - self.first) * self.batch_size / (self.told - self.started)
        line += f"  {values['images_per_second']:.0f} images/s, {whole:.0f} with all else"
        return f"{line}  {self.left()} left"


class _CheckpointWriter(keras.callbacks.Callback):
    """Writes a checkpoint inside an epoch when the last one is old enough."""

    def __init__(
        self, folder: CheckpointFolder, minutes: float, history: list[dict], epoch_steps: int
    ) -> None:
        super().__init__()
        self.folder, self.seconds, self.history, self.epoch_steps = folder, minutes * 60, history, epoch_steps
        self.written = time.monotonic()
        self.start = Position(0, 0)

    def at(self, start: Position) -> "_CheckpointWriter":
        """Says where the coming `fit` starts."""
        self.start = start
        return self

    def due(self) -> bool:
        """Whether the last checkpoint is old enough; the answer yes counts as written."""
        if time.monotonic() - self.written < self.seconds:
            return False
        self.written = time.monotonic()
        return True

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        step = self.start.step + batch + 1
        if self.seconds > 0 and step < self.epoch_steps and self.due():
            loss = (self.start.loss * self.start.step + (logs or {})["loss"] * (batch + 1)) / step
            self.folder.save(self.model, Position(self.start.epoch, step, float(loss)), self.history)
