"""Which engine pretrains, in which precision, and what this machine cannot train. No Keras: a refusal comes at once."""

import dataclasses
import importlib.metadata
import importlib.util
import logging
import os
import pathlib
import subprocess
import sys

from trainer.byol import processes
from trainer.byol.config import PretrainingConfig

logger = logging.getLogger("byol.engine")
# NVIDIA's driver has a folder here for each GPU of the machine.
_GPUS = pathlib.Path("/proc/driver/nvidia/gpus")
_PROCESSOR = pathlib.Path("/proc/cpuinfo")
# Values of ONEDNN_MAX_CPU_ISA that leave it no bfloat16 products on AVX-512 (oneDNN's page "CPU Dispatcher Control").
_WITHOUT_BFLOAT16 = ("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE", "AVX512_CORE_VNNI")


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
        ValueError: when JAX is asked for and not installed, when TensorFlow would have to divide batches among GPUs, or
            when the environment tells of several processes that these settings or this process are not for.
    """
    _check_place(config)
    if choose(config.engine) == "jax" or config.devices == 1:
        return
    devices = config.devices or gpus()
    if devices > 1:
        raise ValueError(
            f"pretraining.devices={config.devices} asks for {devices} devices, and TensorFlow, which trains here, for "
            "one. Give pretraining.engine=jax (with JAX's plugin for them installed), or pretraining.devices=1."
        )


def _check_place(config: PretrainingConfig) -> None:
    place = processes.announced()
    if place.count == 1:
        return
    if place.number > 0:
        raise ValueError(
            f"The environment says that this is process {place.number} of {place.count}; a run is the first one's, "
            f"number 0. Start `KERAS_BACKEND=jax {sys.executable} -m trainer.byol.jax_process` here to train with it."
        )
    if config.devices != 0 or choose(config.engine) != "jax":
        raise ValueError(
            f"The environment tells of {place.count} processes, which train together on JAX, on all of their devices; "
            f"received pretraining.engine={config.engine}, pretraining.devices={config.devices}. Give "
            "pretraining.engine=jax and pretraining.devices=0."
        )


def settled(config: PretrainingConfig, backend: str) -> PretrainingConfig:
    """The same settings with the precision that "auto" means on this machine.

    Args:
        config: the settings.
        backend: "tensorflow" or "jax", which trains.
    """
    if config.precision != "auto":
        return config
    fast = _sees_accelerator() if backend == "jax" else gpus() == 0 and multiplies_bfloat16()
    return dataclasses.replace(config, precision="mixed_bfloat16" if fast else "float32")


def multiplies_bfloat16() -> bool:
    """Whether TensorFlow's products of bfloat16 numbers are instructions of this processor: it has AVX512-BF16, and
    neither oneDNN nor its use is held back by the environment (ONEDNN_MAX_CPU_ISA, TF_ENABLE_ONEDNN_OPTS).
    """
    if os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in _WITHOUT_BFLOAT16:
        return False
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS", "1") == "0" or not _PROCESSOR.exists():
        return False
    flags = (line for line in _PROCESSOR.read_text().splitlines() if line.startswith("flags"))
    return "avx512_bf16" in next(flags, "").split()


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
