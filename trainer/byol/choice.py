"""Which engine pretrains, and what this machine cannot train. No Keras, so that a command refuses at once."""

import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import subprocess
import sys

from trainer.byol.config import PretrainingConfig

logger = logging.getLogger("byol.engine")
# NVIDIA's driver has a folder here for each GPU of the machine.
_GPUS = pathlib.Path("/proc/driver/nvidia/gpus")


def installed() -> bool:
    """Whether JAX can be imported."""
    return importlib.util.find_spec("jax") is not None


def choose(engine: str) -> str:
    """The engine that trains, "tensorflow" or "jax", for the setting `pretraining.engine`.

    Raises:
        ValueError: when JAX is asked for and not installed.
    """
    if engine == "jax" and not installed():
        raise ValueError(
            "pretraining.engine=jax needs JAX, which is not installed. Install byol-tfx[jax], or give "
            "pretraining.engine=tensorflow."
        )
    if engine != "auto":
        return engine
    return "jax" if installed() and _has_plugin() and _sees_accelerator() else "tensorflow"


def check(config: PretrainingConfig) -> None:
    """Refuses what this machine cannot train, before anything is written.

    Raises:
        ValueError: when JAX is asked for and not installed, or TensorFlow would have to divide batches among GPUs.
    """
    if choose(config.engine) == "jax" or config.devices == 1:
        return
    devices = config.devices or gpus()
    if devices > 1:
        raise ValueError(
            f"pretraining.devices={config.devices} asks for {devices} devices, and TensorFlow, which trains here, for "
            "one. Give pretraining.engine=jax (with JAX's plugin for them installed), or pretraining.devices=1."
        )


def gpus() -> int:
    """The number of NVIDIA GPUs that a process of this machine may see; no library is asked."""
    there = len(list(_GPUS.iterdir())) if _GPUS.is_dir() else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return there
    named = visible.split(",")
    # CUDA itself stops at the first name that is none.
    until = next((i for i, name in enumerate(named) if name.strip() in ("", "-1")), len(named))
    return min(there, until)


def _has_plugin() -> bool:
    """Whether JAX could see anything but the CPU; without a plugin nobody waits for its import."""
    plugins = importlib.metadata.entry_points(group="jax_plugins")
    return bool(plugins) or any(importlib.util.find_spec(name) for name in ("jax_plugins", "libtpu"))


def _sees_accelerator() -> bool:
    """Asks JAX in a process of its own: the answer takes a GPU's memory."""
    asked = subprocess.run(
        [sys.executable, "-c", "import jax; print(jax.default_backend())"],
        capture_output=True,
        text=True,
        check=False,
    )
    if asked.returncode != 0:
        logger.warning("JAX cannot say which devices it has: %s", _last_line(asked.stderr))
    return asked.returncode == 0 and _last_line(asked.stdout) != "cpu"


def _last_line(text: str) -> str:
    return next((line for line in reversed(text.splitlines()) if line.strip()), "")
