"""The engine is tried before a run writes: against Beam's own job server, with a worker pool in another process."""

import contextlib
import pathlib
import shutil
import socket
import time

import apache_beam as beam
import pytest
from typer.testing import CliRunner

from pipeline import cli
from pipeline.config import BeamConfig
from pipeline.run import engine_check
from tests.component import engine_processes
from tests.component.engine_processes import PROJECT


@pytest.fixture(scope="module")
def server():
    with engine_processes.job_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def pool():
    with engine_processes.pool() as address:
        yield address


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    (folder / "data_batch_1.bin").write_bytes(bytes(range(256)) * 12)
    return folder


def _config(endpoint, pool, **more):
    settings = {"start_seconds": 60.0, "workers": 1} | more
    return BeamConfig(engine="flink", endpoint=endpoint, flags=f"--environment_config={pool}", **settings)


def _refusal(config, root, data=None):
    with pytest.raises(ValueError, match=r".") as refused:
        engine_check.check(config, root, data)
    line = str(refused.value)
    assert "\n" not in line
    return line


def test_an_engine_that_works_is_let_through_and_nothing_stays(server, pool, records, tmp_path):
    engine_check.check(_config(server, pool), tmp_path / "new" / "root", records)
    assert list(tmp_path.iterdir()) == []
    assert set(engine_processes.jobs(server).values()) == {"DONE"}


def test_a_pool_without_the_environment_ends_the_command_in_the_set_time(server, records, tmp_path):
    """Status 2, one line, nothing written, and no job is left on the engine."""
    (tmp_path / "bin").mkdir()
    with engine_processes.beams_pool_without_the_environment(tmp_path / "bin") as bad_pool:
        started = time.monotonic()
        result = CliRunner().invoke(
            cli.app,
            [
                *("run", "--preset", "cpu", "--root", str(tmp_path / "root"), "--data", str(records)),
                *("--set=beam.engine=flink", f"--set=beam.endpoint={server}", "--set=beam.start_seconds=6"),
                f"--set=beam.flags=--environment_config={bad_pool}",
            ],
        )
    assert time.monotonic() - started < 40
    assert result.exit_code == 2
    assert "ran no worker within 6 s" in result.output
    assert "the job is RUNNING" in result.output
    assert "-m pipeline.run.worker_pool --port 50000" in result.output
    assert not (tmp_path / "root").exists()
    assert "RUNNING" not in engine_processes.jobs(server).values()


def test_our_pool_starts_processes_of_its_own_interpreter_with_nothing_on_the_path(server, tmp_path):
    with engine_processes.pool("--processes", PATH=str(tmp_path)) as address:
        engine_check.check(_config(server, address), tmp_path / "root", None)
    assert list(tmp_path.iterdir()) == []


def test_a_pool_that_is_gone(server, tmp_path):
    line = _refusal(_config(server, "localhost:1"), tmp_path / "root")
    assert "localhost:1" in line
    assert "pipeline.run.worker_pool" in line


def test_nobody_at_the_endpoint_and_the_command_that_starts_one(tmp_path):
    line = _refusal(_config("localhost:1", "localhost:1"), tmp_path / "root")
    assert line.startswith("Nobody answers at beam.endpoint=localhost:1")
    assert f"apache/beam_flink1.18_job_server:{beam.__version__}" in line


def test_another_services_port(pool, tmp_path):
    assert "is not a Beam job service (UNIMPLEMENTED)" in _refusal(_config(pool, pool), tmp_path / "root")


def test_a_port_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(engine_check, "_CONNECT_SECONDS", 1.0)
    with contextlib.closing(socket.create_server(("localhost", 0))) as listener:
        line = _refusal(_config(f"localhost:{listener.getsockname()[1]}", "localhost:1"), tmp_path / "root")
    assert "is not a Beam job service" in line


def test_another_release(pool, tmp_path):
    with engine_processes.job_server("2.48.0") as old:
        line = _refusal(_config(old, pool), tmp_path / "root")
    assert f"is of Beam 2.48.0; expected {beam.__version__}" in line


def test_a_root_that_the_worker_does_not_see(server, pool, tmp_path, monkeypatch):
    """The same path is another folder for each process: that of its own working directory."""
    monkeypatch.chdir(tmp_path)
    line = _refusal(_config(server, pool), pathlib.Path("/proc/self/cwd/root"))
    assert "does not see --root: /proc/self/cwd/root is not there" in line
    assert list(tmp_path.iterdir()) == []


def test_data_that_the_worker_does_not_see(server, pool, records, tmp_path, monkeypatch):
    monkeypatch.chdir(records)
    line = _refusal(_config(server, pool), tmp_path / "root", pathlib.Path("/proc/self/cwd"))
    assert "does not see the data: /proc/self/cwd/" in line


def test_a_worker_of_other_code(server, tmp_path):
    for folder in ("components", "trainer", "pipeline"):
        shutil.copytree(PROJECT / folder, tmp_path / "other" / folder)
    (tmp_path / "other/components/more.py").write_text("MORE = 1\n")
    with engine_processes.pool(cwd=tmp_path / "other") as other_pool:
        line = _refusal(_config(server, other_pool), tmp_path / "root")
    assert "imported other code of this project than is here: digest" in line
