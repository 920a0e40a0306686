"""Beam's options for each engine."""

import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam import beam_args
from pipeline.config import ENGINES, BeamConfig
from pipeline.run.engine_runner import EngineOptions

CLUSTERS = {"portable", "flink", "spark"}


def _options(**settings):
    return PipelineOptions(beam_args(BeamConfig(**settings))).get_all_options()


@pytest.mark.parametrize("engine", ENGINES)
def test_beam_understands_every_option(engine):
    flags = (
        "--job_name=nightly --project=p --region=r --temp_location=gs://b/t" if engine == "dataflow" else ""
    )
    arguments = beam_args(
        BeamConfig(engine=engine, endpoint="host:8099" if engine in CLUSTERS else "", flags=flags)
    )
    options = PipelineOptions(arguments)
    understood = options.get_all_options(retain_unknown_options=False)
    for argument in arguments:
        name = argument.removeprefix("--").split("=")[0]
        # `parallelism` is an option of the Flink job server, which tells Beam of it when it is asked.
        assert name in understood or name == "parallelism"


def test_one_process_is_the_default_and_never_a_downloaded_runner():
    options = _options()
    assert options["runner"].endswith("FnApiRunner")
    assert options["direct_running_mode"] == "in_memory"


def test_processes_job_server_and_workers():
    assert _options(engine="processes", workers=4)["direct_num_workers"] == 4
    portable = _options(engine="portable", endpoint="localhost:8099")
    assert (portable["job_endpoint"], portable["environment_type"]) == ("localhost:8099", "LOOPBACK")
    spark = _options(engine="spark", endpoint="spark:8099", workers=8)
    assert (str(spark["sdk_worker_parallelism"]), spark["environment_type"]) == ("8", "EXTERNAL")
    assert int(spark["environment_cache_millis"]) > 0  # Beam's 0 starts a worker anew for each wave of tasks


def test_the_limit_on_silence_and_the_page_reach_the_runner():
    arguments = beam_args(
        BeamConfig(engine="flink", endpoint="f:1", silence_minutes=7.5, page="http://f:8081")
    )
    chosen = PipelineOptions(arguments).view_as(EngineOptions)
    assert (chosen.engine_silence_minutes, chosen.engine_page) == (7.5, "http://f:8081")


def test_own_flags_win():
    flags = "--environment_type=DOCKER --environment_config='registry/image:1'"
    options = _options(engine="flink", endpoint="flink:8099", flags=flags)
    assert (options["environment_type"], options["environment_config"]) == ("DOCKER", "registry/image:1")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "dask"}, "one of local, processes, portable, flink, spark, dataflow; received 'dask'"),
        ({"workers": 0}, "beam.workers is at least 1; received 0"),
        ({"engine": "flink"}, "beam.engine=flink needs beam.endpoint=HOST:PORT"),
        ({"engine": "flink", "endpoint": "flink"}, "beam.endpoint is HOST:PORT; received 'flink'"),
        ({"start_seconds": 0}, "beam.start_seconds is above 0; received 0"),
        ({"silence_minutes": -1}, "beam.silence_minutes is above 0; received -1"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BeamConfig(**settings)
