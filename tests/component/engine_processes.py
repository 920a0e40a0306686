"""An engine's processes for tests: Beam's own job server and a worker pool, each a process of its own."""

import contextlib
import os
import pathlib
import socket
import subprocess
import sys
import time

import grpc
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

PROJECT = pathlib.Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def process(*arguments, cwd=PROJECT, **environment):
    """A Python module as a process; yields the first line of its output, and ends it after."""
    command = [sys.executable, "-m", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(cwd), **environment}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=cwd, env=environment) as started:
        assert started.stdout
        try:
            yield started.stdout.readline().strip()
        finally:
            started.kill()


def job_server(*release):
    """Beam's Python job server: the protocol that Flink and Spark speak."""
    return process("tests.component.job_server", *release)


def pool(*arguments, **kwargs):
    """Our worker pool, which imports TensorFlow only when asked."""
    return process("pipeline.run.worker_pool", "--port=0", "--cold", *arguments, **kwargs)


@contextlib.contextmanager
def beams_pool_without_the_environment(folder):
    """Beam's own pool, on whose PATH `python` is one that has no apache_beam."""
    (folder / "python").write_text("#!/bin/sh\necho 'No module named apache_beam' >&2\nexit 1\n")
    (folder / "python").chmod(0o755)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    module = "apache_beam.runners.worker.worker_pool_main"
    command = [sys.executable, "-m", module, f"--service_port={port}"]
    environment = {**os.environ, "PATH": str(folder)}
    with subprocess.Popen(command, env=environment) as started:
        try:
            _wait_for(port, started)
            yield f"localhost:{port}"
        finally:
            started.kill()


def _wait_for(port, started):
    while started.poll() is None:
        with contextlib.suppress(ConnectionRefusedError):
            socket.create_connection(("localhost", port)).close()
            return
        time.sleep(0.1)
    raise RuntimeError(f"The pool ended with status {started.returncode}.")


def jobs(endpoint):
    """{name: state} of the jobs that a job server knows."""
    with grpc.insecure_channel(endpoint) as channel:
        stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
        listed = stub.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=10).job_info
    return {job.job_name: beam_job_api_pb2.JobState.Enum.Name(job.state) for job in listed}
