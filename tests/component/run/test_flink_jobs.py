"""A job is ended on Flink itself: Beam's job server calls it CANCELLED and lets it go on (seen on Flink 1.19)."""

import contextlib
import http.server
import logging
import re
import urllib.parse
from typing import Any

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions

from pipeline.beam import beam_args
from pipeline.config import BeamConfig
from pipeline.run import flink_jobs
from tests.component import engine_processes
from tests.component.json_server import JsonHandler, served


class _Flink(http.server.ThreadingHTTPServer):
    """Flink's REST API as JobManager answers: JobsOverviewHandler and JobCancellationHandler (flink-runtime, rest).

    Attributes:
        jobs: id -> [name, state].
        looks: state of each job that was asked to end, one for each time that the list is read.
        coming: a job that is listed from the second reading on.
        status: of every answer, if it is not 0.
    """

    daemon_threads = True

    def __init__(self, **jobs):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.jobs = {job: list(pair) for job, pair in jobs.items()}
        self.looks, self.asked, self.coming, self.status = ["CANCELLING", "CANCELED"], [], {}, 0

    @property
    def page(self):
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(JsonHandler):
    server: Any  # a _Flink

    def do_GET(self):  # noqa: N802 (http.server's name)
        flink = self.server
        if flink.status:
            return self._send(flink.status, {"errors": ["no"]})
        assert self.path == "/jobs/overview"
        listed = [
            {"jid": job, "name": name, "start-time": 1, "end-time": -1, "duration": 1, "state": state}
            for job, (name, state) in flink.jobs.items()
        ]
        flink.jobs |= flink.coming
        for job in flink.asked:
            flink.jobs[job][1] = flink.looks.pop(0) if flink.looks else flink.jobs[job][1]
        return self._send(200, {"jobs": listed})

    def do_PATCH(self):  # noqa: N802
        path = urllib.parse.urlsplit(self.path)
        assert urllib.parse.parse_qs(path.query) == {"mode": ["cancel"]}
        named = re.fullmatch(r"/jobs/(\w+)", path.path)
        assert named
        job = named[1]
        assert self.server.jobs[job][1] not in flink_jobs.ENDED
        self.server.asked.append(job)
        self._send(202, {})

    def log_message(self, *_):
        """Nothing on the terminal."""


@contextlib.contextmanager
def _flink(**jobs):
    with served(_Flink(**jobs)) as flink:
        yield flink


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(flink_jobs, "_POLL_SECONDS", 0.01)
    monkeypatch.setattr(flink_jobs, "_SUBMITTING_SECONDS", 0.3)


def test_the_jobs_of_a_name_end_and_no_other():
    with _flink(a1=("mine", "RUNNING"), b2=("another", "RUNNING"), c3=("mine", "FINISHED")) as flink:
        assert flink_jobs.end(flink.page, "mine", 5) == ["a1"]
        assert flink.asked == ["a1"]
        assert flink.jobs == {
            "a1": ["mine", "CANCELED"],
            "b2": ["another", "RUNNING"],
            "c3": ["mine", "FINISHED"],
        }


def test_a_job_that_was_just_being_handed_over_is_waited_for():
    with _flink() as flink:
        flink.coming = {"a1": ["mine", "CREATED"]}
        assert flink_jobs.end(f"{flink.page}/", "mine", 5) == ["a1"]


def test_a_job_that_never_came_is_no_error():
    with _flink() as flink:
        assert flink_jobs.end(flink.page, "mine", 5) == []


def test_what_is_not_known_to_have_ended_is_told():
    with _flink(a1=("mine", "RUNNING")) as flink:
        flink.looks = ["CANCELLING"]
        with pytest.raises(flink_jobs.FlinkError, match=r"at work still after 0\.1 s: job a1"):
            flink_jobs.end(flink.page, "mine", 0.1)
        flink.status = 404
        with pytest.raises(flink_jobs.FlinkError, match="jobs/overview was answered with status 404"):
            flink_jobs.end(flink.page, "mine", 1)
    with pytest.raises(flink_jobs.FlinkError, match="jobs/overview: "):  # nobody is there any more
        flink_jobs.end(flink.page, "mine", 1)


@pytest.mark.parametrize("page", [True, False])
def test_cancelling_ends_the_job_there_or_says_that_it_may_go_on(page, caplog, tmp_path):
    caplog.set_level(logging.INFO, "byol")
    with (
        engine_processes.job_server() as endpoint,
        engine_processes.beams_pool_without_the_environment(tmp_path) as pool,
        _flink(a1=("long", "RUNNING")) as flink,
    ):
        config = BeamConfig(
            engine="flink",
            endpoint=endpoint,
            page=flink.page if page else "",
            flags=f"--environment_config={pool} --job_name=long",
        )
        pipeline = beam.Pipeline(options=PipelineOptions(beam_args(config)))
        _ = pipeline | beam.Create([1]) | beam.Map(print)
        pipeline.run().cancel()
        assert engine_processes.jobs(endpoint)["long"] == "CANCELLED"
        assert flink.jobs["a1"][1] == ("CANCELED" if page else "RUNNING")
    last = [record.getMessage() for record in caplog.records if record.name == "byol"][-1]
    assert (
        last == "Beam job long is ended." if page else last.startswith("Flink may be at work on the job long")
    )
