"""A pretraining on disk: what the Pretrainer hands to a process that trains on another backend. No TensorFlow."""

import dataclasses
import json
import pathlib
from collections.abc import Iterable

import numpy as np

from components.data.dataset import CIFAR10
from trainer import settings
from trainer.architecture import EncoderConfig
from trainer.byol.config import PretrainingConfig
from trainer.byol.monitors import MonitorImages
from trainer.byol.pretraining import ImageSource, PretrainingImages, PretrainingResult
from trainer.byol.warm_start import ENCODER_FILE, NETWORKS_FILE, WarmStart, save_networks

_JOB, _IMAGES, _NORMALISATION, _MONITOR, _WEIGHTS = (
    "job.json",
    "images.npy",
    "norm.npz",
    "monitor.npz",
    "weights.npz",
)


@dataclasses.dataclass(frozen=True)
class Job:
    """Everything that a pretraining needs, and where its result goes.

    Attributes:
        config, encoder: what to train.
        data: the images; memory-mapped where they were read from disk.
        monitor: images of the monitors; None turns them off.
        checkpoints: folder of the root's checkpoints.
        result: folder for the encoder and the other networks.
        start: weights to start from; None for random ones.
    """

    config: PretrainingConfig
    encoder: EncoderConfig
    data: ImageSource
    monitor: MonitorImages | None
    checkpoints: pathlib.Path
    result: pathlib.Path
    start: WarmStart | None


def write_images(
    folder: pathlib.Path,
    count: int,
    batches: Iterable[np.ndarray],
    shape: tuple[int, int, int] = CIFAR10.shape,
) -> None:
    """Writes `count` images, [n, *shape] uint8 a batch, as they come; memory does not grow with them."""
    images = np.lib.format.open_memmap(folder / _IMAGES, "w+", np.uint8, (count, *shape))
    first = 0
    for batch in batches:
        images[first : first + len(batch)] = batch
        first += len(batch)
    images.flush()


def write_job(folder: pathlib.Path, job: Job) -> None:
    """Writes all but the images, which `write_images` has written there."""
    values = {
        "pretraining": dataclasses.asdict(job.config),
        "encoder": dataclasses.asdict(job.encoder),
        "checkpoints": str(job.checkpoints.absolute()),
        "result": str(job.result.absolute()),
        "start": {"policy": job.start.policy, "source": job.start.source} if job.start else None,
    }
    (folder / _JOB).write_text(json.dumps(values))
    np.savez(folder / _NORMALISATION, mean=job.data.channel_mean, std=job.data.channel_std)
    if job.monitor is not None:
        np.savez(
            folder / _MONITOR,
            **{f.name: getattr(job.monitor, f.name) for f in dataclasses.fields(job.monitor)},
        )
    if job.start is not None:
        np.savez(folder / _WEIGHTS, **job.start.weights)  # type: ignore[arg-type]


def read_job(folder: pathlib.Path) -> Job:
    """Reads what `write_images` and `write_job` wrote."""
    values = json.loads((folder / _JOB).read_text())
    norm = _arrays(folder / _NORMALISATION)
    monitor = folder / _MONITOR
    start = values["start"]
    return Job(
        config=settings.from_dict(PretrainingConfig, values["pretraining"], "pretraining."),
        encoder=settings.from_dict(EncoderConfig, values["encoder"], "encoder."),
        data=PretrainingImages(np.load(folder / _IMAGES, mmap_mode="r"), norm["mean"], norm["std"]),
        monitor=_monitor(_arrays(monitor)) if monitor.exists() else None,
        checkpoints=pathlib.Path(values["checkpoints"]),
        result=pathlib.Path(values["result"]),
        start=WarmStart(weights=_arrays(folder / _WEIGHTS), **start) if start else None,
    )


def _monitor(arrays: dict[str, np.ndarray]) -> MonitorImages:
    classes = int(arrays.pop("classes"))
    return MonitorImages(**arrays, classes=classes)


def write_result(job: Job, result: PretrainingResult) -> None:
    """Saves the product and the other networks into the job's result folder."""
    result.encoder().save(job.result / ENCODER_FILE)
    save_networks(result.model, job.result / NETWORKS_FILE)


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}
