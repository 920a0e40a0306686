"""A pretraining that starts from the networks of an earlier one. No TensorFlow, no TFX.

docs/decisions/0062-warm-start.md says what is taken over and what is not.
"""

import dataclasses
import hashlib
import logging
import pathlib
import zipfile

import keras
import numpy as np

from trainer.byol.byol import BYOL
from trainer.byol.config import WARM_STARTS

logger = logging.getLogger("byol.warm_start")
# What a Pretrainer leaves: the online encoder as Keras saves it, and the other four networks as arrays.
ENCODER_FILE = "encoder.keras"
NETWORKS_FILE = "networks.npz"
ENCODER = "online_encoder"
OTHERS = ("online_projector", "predictor", "target_encoder", "target_projector")
Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """The weights that a pretraining starts from instead of random ones.

    Attributes:
        policy: "encoder": the online and the target encoder start from the earlier online encoder, the heads anew.
            "full": online and target networks start from what they were, heads and batch-norm moments included.
        weights: by "network/layer/variable", float32; of the online encoder alone, or of all five networks. The
            normalisation has none: it belongs to the data.
        source: where they were read, for messages.
    """

    policy: str
    weights: Arrays
    source: str

    def digest(self) -> str:
        """Hex digest of the policy and every weight: part of the identity of what starts from them."""
        found = hashlib.sha256(self.policy.encode())
        for name, array in sorted(self.weights.items()):
            found.update(f"{name} {array.dtype.str} {array.shape}".encode())
            found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()

    def apply(self, model: BYOL) -> None:
        """Assigns the weights to a fresh model: all of them or, where one does not fit, none.

        Raises:
            ValueError: when the earlier networks have other layers or shapes than the model's.
        """
        variables = _variables(model, (ENCODER,) if self.policy == "encoder" else (ENCODER, *OTHERS))
        self._check(variables)
        for name, variable in variables.items():
            variable.assign(self.weights[name])
        if self.policy == "encoder":
            model.target_encoder.set_weights(model.online_encoder.get_weights())

    def _check(self, variables: dict[str, keras.Variable]) -> None:
        expected = {name: tuple(v.shape) for name, v in variables.items()}
        received = {name: array.shape for name, array in self.weights.items()}
        names = [n for n in dict.fromkeys([*expected, *received]) if expected.get(n) != received.get(n)]
        if names:
            raise ValueError(
                f"Warm start {self.policy!r} from {self.source}: {len(names)} of {len(expected)} variables do not "
                f"fit, the first is {names[0]!r}. Received {received.get(names[0], 'none')}, expected "
                f"{expected.get(names[0], 'none')} by encoder.* and pretraining.head.*. Give the settings of the "
                f"earlier pretraining, or another warm start of {', '.join(WARM_STARTS)}."
            )


def save_networks(model: BYOL, path: pathlib.Path) -> None:
    """Writes the networks beside the online encoder, which `encoder.keras` holds: what "full" needs, no pickle."""
    np.savez(path, **_arrays(_variables(model, OTHERS)))  # type: ignore[arg-type]


def read_warm_start(policy: str, base_model: str | None) -> WarmStart | None:
    """Reads what a pretraining starts from; None when it starts anew.

    Args:
        policy: one of WARM_STARTS.
        base_model: folder that an earlier Pretrainer wrote. None, as in the first run of a schedule, starts anew
            whatever the policy, and says so.

    Raises:
        ValueError: for an unknown policy, or a folder that does not hold the earlier networks whole.
    """
    if policy not in WARM_STARTS:
        raise ValueError(f"warm_start is one of {', '.join(WARM_STARTS)}; received {policy!r}.")
    if policy == "never":
        return None
    if not base_model:
        logger.info("There is no earlier encoder to start from (warm_start %s): starting anew.", policy)
        return None
    folder = pathlib.Path(base_model)
    try:
        encoder = keras.models.load_model(folder / ENCODER_FILE, compile=False)
        weights = _arrays(_named(ENCODER, encoder))
        if policy == "full":
            with np.load(folder / NETWORKS_FILE, allow_pickle=False) as arrays:
                weights |= {name: arrays[name] for name in arrays.files}
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        needed = f"{ENCODER_FILE} and {NETWORKS_FILE}" if policy == "full" else ENCODER_FILE
        raise ValueError(
            f"Warm start {policy!r} expects {needed} of an earlier Pretrainer in {folder}; received "
            f"{type(error).__name__}: {error}. Give the folder of such a model, or warm_start 'never'."
        ) from error
    return WarmStart(policy, weights, str(folder))


def _variables(model: BYOL, networks: tuple[str, ...]) -> dict[str, keras.Variable]:
    found: dict[str, keras.Variable] = {}
    for name in networks:
        found |= _named(name, getattr(model, name))
    return found


def _named(name: str, network: keras.Model) -> dict[str, keras.Variable]:
    """A network's weights and batch-norm moments by names that do not depend on how it was made."""
    return {f"{name}/{layer.name}/{v.name}": v for layer in network.layers for v in layer.weights}


def _arrays(variables: dict[str, keras.Variable]) -> Arrays:
    return {name: np.asarray(keras.ops.convert_to_numpy(v), np.float32) for name, v in variables.items()}
