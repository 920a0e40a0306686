"""A job on an engine: it is told of, it does not wait for ever, and it ends when its waiting process ends."""

import io
import logging
import re
import signal
import subprocess
import sys
import time

import apache_beam as beam
import pytest
from absl import logging as absl_logging
from apache_beam.options.pipeline_options import PipelineOptions
from rich.console import Console

from pipeline.beam import beam_args
from pipeline.config import BeamConfig
from pipeline.run import engine_runner, progress
from pipeline.run.engine_runner import TERMINATED, EngineError
from tests.component import engine_processes
from tests.component.engine_processes import PROJECT

# A worker that is asked for at an address where a pool is, which starts none: the job is at work for ever.
_WAITING = (
    "import sys, apache_beam as beam\n"
    "from apache_beam.options.pipeline_options import PipelineOptions\n"
    "with beam.Pipeline(options=PipelineOptions(sys.argv[1:])) as pipeline:\n"
    "    _ = pipeline | beam.Create([1]) | beam.Map(print)\n"
)


@pytest.fixture(scope="module")
def server():
    with engine_processes.job_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def dead_pool(tmp_path_factory):
    with engine_processes.beams_pool_without_the_environment(tmp_path_factory.mktemp("bin")) as address:
        yield address


def _arguments(endpoint, pool, name, **settings):
    flags = f"--environment_config={pool} --job_name={name}"
    return beam_args(BeamConfig(engine="flink", endpoint=endpoint, flags=flags, **settings))


def _state_of(server, name, wanted, seconds=60):
    until = time.monotonic() + seconds
    while (state := engine_processes.jobs(server).get(name)) != wanted and time.monotonic() < until:
        time.sleep(0.2)
    return state


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGTERM, TERMINATED)]
)
def test_the_job_ends_with_the_process_that_waits_for_it(server, dead_pool, number, status):
    name = f"ends-by-{number.name.lower()}"
    command = [sys.executable, "-c", _WAITING, *_arguments(server, dead_pool, name)]
    with subprocess.Popen(command, cwd=PROJECT, stderr=subprocess.DEVNULL) as waiting:
        assert _state_of(server, name, "RUNNING") == "RUNNING"
        waiting.send_signal(number)
        assert waiting.wait(30) == status
    assert engine_processes.jobs(server)[name] == "CANCELLED"


def test_a_silent_engine_ends_the_node_with_the_state_and_the_job_is_cancelled(server, dead_pool):
    options = PipelineOptions(_arguments(server, dead_pool, "silent", silence_minutes=0.05))
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([1]) | beam.Map(print)
    with pytest.raises(
        EngineError, match=r"no progress for 0\.05 min: the job silent-\S+ is RUNNING, it said"
    ):
        pipeline.run().wait_until_finish()
    assert engine_processes.jobs(server)["silent"] == "CANCELLED"


def test_a_job_server_that_goes_ends_the_node(dead_pool):
    with engine_processes.job_server() as endpoint:
        options = PipelineOptions(_arguments(endpoint, dead_pool, "gone", silence_minutes=0.03))
        pipeline = beam.Pipeline(options=options)
        _ = pipeline | beam.Create([1]) | beam.Map(print)
        result = pipeline.run()
    with pytest.raises(EngineError, match=f"job server at {endpoint} answers no more") as raised:
        result.wait_until_finish()
    assert raised.value.__cause__ is None  # the innermost cause is what a person is told


def test_the_job_its_state_and_the_page_are_told(server, caplog):
    """LOOPBACK: the workers are threads of this process."""
    caplog.set_level(logging.INFO, "byol")
    config = BeamConfig(engine="portable", endpoint=server, flags="--job_name=told", page="http://flink:8081")
    with beam.Pipeline(options=PipelineOptions(beam_args(config))) as pipeline:
        _ = pipeline | beam.Create([1]) | beam.Map(str)
    lines = [record.getMessage() for record in caplog.records if record.name == "byol"]
    assert lines[0].startswith("Beam job told-")
    assert lines[-1].endswith(f" at {server}: DONE, http://flink:8081")


def test_a_jobs_name_holds_the_nodes(server):
    def run():
        with beam.Pipeline(
            options=PipelineOptions(beam_args(BeamConfig(engine="portable", endpoint=server)))
        ) as pipeline:
            _ = pipeline | beam.Create([1]) | beam.Map(str)

    before = set(engine_processes.jobs(server))
    run()
    with progress.followed(Console(file=io.StringIO()), ["Transform"], {}):
        absl_logging.info("Component %s is running.", "Transform")
        run()
    names = sorted(set(engine_processes.jobs(server)) - before, key=len)
    assert re.fullmatch(r"byol-[0-9a-f]{12}", names[0])
    assert re.fullmatch(r"byol-transform-[0-9a-f]{12}", names[1])


def test_after_a_pool_that_was_killed_at_work_the_same_pipeline_finishes(server, tmp_path):
    """The first job ends with its worker, within the limit on silence at the latest; none stays on the engine."""

    at_work = f"mkdir {tmp_path}/started && sleep 60; echo done"  # it stays there the first time only

    def submitted(address, name):
        options = PipelineOptions(_arguments(server, address, name, silence_minutes=0.1, workers=1))
        pipeline = beam.Pipeline(options=options)
        # Of the standard library: a worker imports it whatever its path is.
        made = pipeline | beam.Create([at_work]) | beam.Map(subprocess.getoutput)
        _ = made | beam.io.WriteToText(str(tmp_path / "out"), num_shards=1)
        return pipeline.run()

    with engine_processes.pool() as address:
        first = submitted(address, "killed-pool")
        until = time.monotonic() + 60
        while not (tmp_path / "started").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
    with pytest.raises(RuntimeError):  # EngineError is one
        first.wait_until_finish()
    assert engine_processes.jobs(server)["killed-pool"] in ("CANCELLED", "FAILED")
    assert not list(tmp_path.glob("out*"))
    with engine_processes.pool() as address:
        assert submitted(address, "new-pool").wait_until_finish() == "DONE"
    (out,) = tmp_path.glob("out*")
    assert out.read_text().endswith("done\n")
    assert out.read_text().count("done") == 1


@pytest.mark.parametrize(
    ("said", "gone"),
    [  # as Flink 1.19 and 1.18 said it of a pool that was killed
        ("java.net.ConnectException: finishConnect(..) failed: Connection refused", True),
        ("CANCELLED: client cancelled", True),
        ("ZeroDivisionError: division by zero", False),
    ],
)
def test_a_worker_that_went_is_told_with_where_and_how_to_start_it(said, gone):
    options = PipelineOptions(_arguments("host:8099", "pool-host:50000", "any"))
    told = engine_runner.with_what_mends_it(said, options)
    assert told.startswith(said)
    assert ("at pool-host:50000 is gone" in told) is gone
    assert ("-m pipeline.run.worker_pool --port 50000" in told) is gone
    local = PipelineOptions(beam_args(BeamConfig(engine="portable", endpoint="host:8099")))
    assert engine_runner.with_what_mends_it(said, local) == said  # it has no pool


def test_a_failed_job_says_what_the_worker_said(server):
    options = PipelineOptions(beam_args(BeamConfig(engine="portable", endpoint=server)))
    pipeline = beam.Pipeline(options=options)
    _ = pipeline | beam.Create([0]) | beam.Map(_inverse)
    with pytest.raises(RuntimeError, match=r"ended as FAILED:[\s\S]*ZeroDivisionError: division by zero"):
        pipeline.run().wait_until_finish()


def _inverse(number):
    return 1 / number
