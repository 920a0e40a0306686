"""Beam's options from one setting; docs/beam.md says which of them were run."""

import shlex
from collections.abc import Callable

from pipeline.config import BeamConfig

_WATCHED = (
    "--runner=pipeline.run.engine_runner.EngineRunner"  # Beam's PortableRunner, with an end to its waiting
)
# Newer Beam's own default runner downloads a binary when it starts; this one is in both lanes.
IN_PROCESS = "--runner=apache_beam.runners.portability.fn_api_runner.FnApiRunner"

# Spark's tasks give their worker back at their end, and Beam ends one that nobody holds: the next wave of tasks would
# start another, which imports TensorFlow.
_IDLE_WORKER_MILLIS = 60_000


def beam_args(config: BeamConfig) -> list[str]:
    """Returns the command-line options with which TFX runs its Beam components."""
    return [*_ENGINE_ARGS[config.engine](config), *shlex.split(config.flags)]


def _processes(config: BeamConfig) -> list[str]:
    return [IN_PROCESS, "--direct_running_mode=multi_processing", f"--direct_num_workers={config.workers}"]


def _portable(config: BeamConfig) -> list[str]:
    # LOOPBACK: the workers are threads of the submitting process, so the job server needs none of our code.
    return [*_watched(config), "--environment_type=LOOPBACK"]


def _flink(config: BeamConfig) -> list[str]:
    return [*_cluster(config), f"--parallelism={config.workers}", "--engine_name=flink"]


def _spark(config: BeamConfig) -> list[str]:
    return [
        *_cluster(config),
        f"--sdk_worker_parallelism={config.workers}",
        f"--environment_cache_millis={_IDLE_WORKER_MILLIS}",
    ]


def _cluster(config: BeamConfig) -> list[str]:
    # A worker pool with our environment beside each task manager or executor, as Beam's own charts have it.
    return [*_watched(config), "--environment_type=EXTERNAL", "--environment_config=localhost:50000"]


def _watched(config: BeamConfig) -> list[str]:
    page = [f"--engine_page={config.page}"] if config.page else []
    return [
        _WATCHED,
        f"--job_endpoint={config.endpoint}",
        f"--engine_silence_minutes={config.silence_minutes:g}",
        *page,
    ]


def _dataflow(config: BeamConfig) -> list[str]:
    # Workers install the project from its source, which is why setup.py names what it needs.
    return ["--runner=DataflowRunner", f"--max_num_workers={config.workers}", "--setup_file=./setup.py"]


_ENGINE_ARGS: dict[str, Callable[[BeamConfig], list[str]]] = {
    "local": lambda _: [IN_PROCESS, "--direct_running_mode=in_memory"],
    "processes": _processes,
    "portable": _portable,
    "flink": _flink,
    "spark": _spark,
    "dataflow": _dataflow,
}
