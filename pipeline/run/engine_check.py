"""Tries the Beam engine before a run writes anything: its job server, a worker, the worker's code, root and data."""

import concurrent.futures
import contextlib
import pathlib
import re
import secrets
import socket
import tempfile
import threading
from collections.abc import Iterator
from typing import Any

import apache_beam as beam
import grpc
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2, beam_job_api_pb2_grpc

from pipeline.beam import beam_args
from pipeline.config import BeamConfig
from pipeline.run import worker_probe
from pipeline.run.engine_runner import EngineResult, at_pool, pool_command

_CONNECT_SECONDS = 10.0
_USER_AGENT = "beam:option:user_agent:v1"  # Java's job servers write their release into a job's options
_JOB_SERVERS = {
    "flink": "docker run --net=host apache/beam_flink1.18_job_server:{release} --flink-master=HOST:8081",
    "spark": "docker run --net=host apache/beam_spark3_job_server:{release} --spark-master-url=spark://HOST:7077",
    "portable": "the job server of Beam {release}",
}


def check(config: BeamConfig, root: pathlib.Path, data: pathlib.Path | None) -> None:
    """Runs a job of one row on the engine; leaves neither a file nor a folder behind.

    Args:
        config: the engine; nothing is done for those that live in this process and its children.
        root: of the run; made for the moment if it is not there.
        data: folder of the record files; None when the run makes its own.

    Raises:
        ValueError: one line, with what was received, what was expected, and what mends it.
        OSError: the root cannot be written.
    """
    if not config.has_cluster:
        return
    options = PipelineOptions(beam_args(config))
    endpoint = options.view_as(PortableOptions).job_endpoint
    if endpoint:
        _check_endpoint(config, endpoint)
    with _folder_below(root) as folder:
        question = _question(folder, data)
        result = _submitted(config, options, question)
        try:
            state = _waited(config, options, result)
        finally:
            _end(result)
            if isinstance(result, EngineResult):
                _check_release(endpoint, result.job_id)  # the better reason, whatever else went wrong
        if not (folder / worker_probe.ANSWER_FILE).exists():
            raise ValueError(
                f"The worker's answer is not in {root}: the job was {state}, and what the worker wrote there is not "
                "seen here. Put --root on storage that every worker mounts at the same path."
            )


def _check_endpoint(config: BeamConfig, endpoint: str) -> None:
    release = beam.__version__
    start = _JOB_SERVERS.get(config.engine, "").format(release=release)
    host, _, port = endpoint.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"Nobody answers at beam.endpoint={endpoint}: {error}. Expected a job server of Beam {release}; "
            f"start one: {start}"
        ) from error
    with grpc.insecure_channel(endpoint) as channel:
        try:
            _jobs(channel)
        except grpc.RpcError as error:
            code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
            raise ValueError(
                f"What answers at beam.endpoint={endpoint} is not a Beam job service ({code}). Expected the job "
                "server's own port, 8099 by default, not that of its artifacts, of its expansion service, of a "
                "worker pool or of the engine's page."
            ) from error


def _jobs(channel: grpc.Channel) -> list[Any]:
    stub = beam_job_api_pb2_grpc.JobServiceStub(channel)
    return list(stub.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=_CONNECT_SECONDS).job_info)


def _check_release(endpoint: str, job_id: str) -> None:
    """Compares the job server's release, where it tells one: the job API has no call for it."""
    with grpc.insecure_channel(endpoint) as channel:
        for job in _jobs(channel):
            agent = dict(job.pipeline_options).get(_USER_AGENT, "") if job.job_id == job_id else ""
            found = re.search(r"Apache_Beam_SDK_for_\w+/([\w.]+)", str(agent))
            if found and found[1] != beam.__version__:
                raise ValueError(
                    f"The job server at beam.endpoint={endpoint} is of Beam {found[1]}; expected {beam.__version__}, "
                    f"the release here. Start the job server of Beam {beam.__version__}."
                )


@contextlib.contextmanager
def _folder_below(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder in the root for the while; folders that had to be made for it go with it."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".engine-", dir=root) as name:
            folder = pathlib.Path(name)
            folder.chmod(0o777)  # workers may be of another user
            yield folder
    finally:
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else put something there meanwhile
                parent.rmdir()


def _question(folder: pathlib.Path, data: pathlib.Path | None) -> dict[str, Any]:
    token = secrets.token_hex(16)
    token_file = folder / worker_probe.TOKEN_FILE
    token_file.write_text(token)
    record = min(data.rglob("*.bin"), default=None) if data is not None else None
    return {
        "facts": worker_probe.facts(),
        "folder": str(folder),
        "token": token,
        "token_digest": worker_probe.head_digest(token_file),
        "data": str(record.absolute()) if record else "",
        "data_digest": worker_probe.head_digest(record) if record else "",
    }


def _submitted(config: BeamConfig, options: PipelineOptions, question: dict[str, Any]) -> Any:
    """The result of the job; in a thread, since staging waits for ever at an address that is not to be reached."""
    submitted: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def submit() -> None:
        try:
            pipeline = beam.Pipeline(options=options)
            _ = pipeline | beam.Create([question]) | beam.Map(worker_probe.answer)
            submitted.set_result(pipeline.run())
        except Exception as error:  # noqa: BLE001 - handed to the thread that waits
            submitted.set_exception(error)

    threading.Thread(target=submit, name="engine-check", daemon=True).start()
    try:
        return submitted.result(config.start_seconds)
    except concurrent.futures.TimeoutError as error:
        raise ValueError(
            f"The engine {config.engine} took no job within {config.start_seconds:g} s. Expected its artifact endpoint "
            "to be reached from here; give it as beam.flags=--artifact_endpoint=HOST:8098."
        ) from error
    except Exception as error:
        # The boundary to Beam and gRPC: whatever refuses a job becomes one line.
        raise ValueError(f"The engine {config.engine} refuses a job: {_last_line(str(error))}") from error


def _waited(config: BeamConfig, options: PipelineOptions, result: Any) -> str:
    """The state of the job at its end."""
    try:
        state = str(result.wait_until_finish(duration=int(1000 * config.start_seconds)))
    except Exception as error:
        # The same boundary; what our own worker says goes before what the engine makes of it.
        text = f"{error}\n{_messages(result)}"
        raise ValueError(_failed(config, options, text, _said(result) or str(error))) from error
    if state != "DONE":
        said = _said(result)
        raise ValueError(
            f"The engine {config.engine} ran no worker within {config.start_seconds:g} s (beam.start_seconds): the job "
            f"is {state}{f', it said last: {said}' if said else ''}. Expected workers with this project's environment"
            f"{at_pool(options)}; start them where the engine's tasks run: {pool_command()}"
        )
    return state


def _failed(config: BeamConfig, options: PipelineOptions, text: str, error: str) -> str:
    told = re.search(re.escape(worker_probe.PROBLEM) + "(.*?)" + re.escape(worker_probe.END), text, re.DOTALL)
    if told:
        return f"{told[1]} (beam.engine={config.engine})"
    expected = ", ".join(f"{name} {value[:10]}" for name, value in worker_probe.facts().items())
    return (
        f"A job of one row failed on the engine {config.engine}: {_last_line(error)}. Expected workers with this "
        f"project's environment ({expected}){at_pool(options)}; start them where the engine's tasks run: "
        f"{pool_command()}"
    )


def _said(result: Any) -> str:
    return result.said() if isinstance(result, EngineResult) else ""


def _messages(result: Any) -> str:
    return result.messages() if isinstance(result, EngineResult) else ""


def _end(result: Any) -> None:
    """Ends the job if it is at work still."""
    if result.state not in ("DONE", "FAILED", "CANCELLED", "DRAINED"):
        result.cancel()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[while running" not in line[:16]]
    return (lines[-1].split(" [while running")[0] if lines else "no reason given").rstrip(".")
