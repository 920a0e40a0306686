"""The whole state of a pretraining on disk: written atomically, verified when read."""

import dataclasses
import hashlib
import io
import json
import logging
import pathlib
import shutil

import keras
import numpy as np

from components import staging
from trainer.byol import processes

logger = logging.getLogger("byol.checkpoint")
DIGEST_BYTES = hashlib.sha256().digest_size


@dataclasses.dataclass(frozen=True)
class Position:
    """Where the training stands.

    Attributes:
        epoch: 0-based.
        step: updates of this epoch that are done.
        loss: mean loss of those updates.
    """

    epoch: int
    step: int
    loss: float = 0.0


class CheckpointFolder:
    """The checkpoints of one pretraining, newest last; a damaged one falls back to the one before.

    A checkpoint is an npz archive followed by the SHA-256 of its bytes, which is compared before they are parsed.

    Args:
        folder: made when the first checkpoint is written.
        identity: digest of what is trained on what; a checkpoint of another identity is never restored.
        kept: how many of the newest stay.
    """

    def __init__(self, folder: pathlib.Path, identity: str, kept: int = 2) -> None:
        self.folder = folder
        self.identity = identity
        self.kept = kept

    def save(self, model: keras.Model, position: Position, history: list[dict]) -> None:
        """Writes every variable of model and optimizer, position and history; keeps the newest ones. Of several
        processes the first one does.
        """
        if not processes.is_first():
            return
        path = self.folder / f"checkpoint-{position.epoch:06d}-{position.step:08d}.npz"
        state = {f"v{i:05d}": keras.ops.convert_to_numpy(v) for i, v in enumerate(_variables(model))}
        header = {"identity": self.identity, "position": dataclasses.asdict(position), "history": history}
        archive = io.BytesIO()
        np.savez(archive, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **state)
        content = archive.getbuffer()
        with staging.written_whole(path) as temporary, temporary.open("wb") as file:
            file.write(content)
            file.write(hashlib.sha256(content).digest())
        for old in self.paths()[: -self.kept]:
            old.unlink()

    def restore(self, model: keras.Model) -> tuple[Position, list[dict]]:
        """Loads the newest good checkpoint into the built model and optimizer; several processes load the first one's.

        One that cannot be used is set aside as `*.unusable`, with a warning.

        Returns:
            Its position and history; the start and [] when there is none.
        """
        archive = processes.of_first(lambda: self._newest(model))
        if not archive:
            return Position(0, 0), []
        header, state = _parsed(archive)
        for variable, value in zip(_variables(model), state, strict=True):
            variable.assign(value)
        return Position(**header["position"]), header["history"]

    def _newest(self, model: keras.Model) -> bytes:
        """The archive of the newest checkpoint that fits the model; b"" when there is none."""
        for path in reversed(self.paths()):
            try:
                archive = _read(path)
                self._check(*_parsed(archive), model)
            except (OSError, ValueError) as error:
                logger.warning("Checkpoint %s cannot be used: %s. Trying the one before.", path.name, error)
                staging.move(path, path.with_suffix(".unusable"))
                continue
            return archive
        return b""

    def remove(self) -> None:
        """Deletes the folder: the training is finished and its result is stored."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def paths(self) -> list[pathlib.Path]:
        """The complete checkpoints, oldest first."""
        return sorted(self.folder.glob("checkpoint-*.npz"))

    def _check(self, header: dict, state: list[np.ndarray], model: keras.Model) -> None:
        if header["identity"] != self.identity:
            raise ValueError("it belongs to another training")
        shapes = [tuple(v.shape) for v in _variables(model)]
        if [value.shape for value in state] != shapes:
            raise ValueError("its variables have other shapes than the model's")


def _variables(model: keras.Model) -> list[keras.Variable]:
    """Networks, moments, random state, then the optimizer's: its step count, rates and slots."""
    return [*model.variables, *model.optimizer.variables]


def _read(path: pathlib.Path) -> bytes:
    """The archive, without its digest."""
    content = path.read_bytes()
    archive, digest = content[:-DIGEST_BYTES], content[-DIGEST_BYTES:]
    if hashlib.sha256(archive).digest() != digest:
        raise ValueError("its content does not match its digest")
    return archive


def _parsed(archive: bytes) -> tuple[dict, list[np.ndarray]]:
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        header = json.loads(arrays["header"].tobytes())
        return header, [arrays[name] for name in sorted(arrays.files) if name != "header"]
