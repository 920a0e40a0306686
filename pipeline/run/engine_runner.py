"""Beam's PortableRunner as a run needs it: a job that is watched, that is told of, and that ends with its node.

Beam's own result waits for ever on an engine that is silent, leaves the job on the engine when the waiting process is
interrupted, and ends its streams after `job_server_timeout`, a minute, where the engine gives a job the id that it was
prepared under.
"""

import argparse
import contextlib
import logging
import re
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from types import FrameType
from typing import Any

import grpc
from apache_beam.options.pipeline_options import GoogleCloudOptions, PipelineOptions, PortableOptions
from apache_beam.portability.api import beam_job_api_pb2
from apache_beam.runners.portability import portable_runner

from pipeline.run import flink_jobs, progress

_LINES = logging.getLogger("byol")
_POLL_SECONDS = 0.5
_CALL_SECONDS = 10.0  # one call of the job service, which does no work in it
_ENDING_SECONDS = 30.0  # Flink waits for its tasks to give up
_GONE_SECONDS = 60.0  # a job server that does not answer for so long is gone, not started again
_ERROR = beam_job_api_pb2.JobMessage.JOB_MESSAGE_ERROR
FLINK = "flink"
# Flink 1.18 and 1.19, of a pool that was killed in the middle of a job.
_WORKER_GONE = re.compile(r"ConnectException|CANCELLED: client cancelled|UNAVAILABLE")
TERMINATED = 128 + signal.SIGTERM


class EngineError(RuntimeError):
    """The engine, not the node's code, ended a job; what it says is in the message, one line."""


class EngineOptions(PipelineOptions):
    """The options of `EngineRunner`, which Beam's parser takes with its own."""

    @classmethod
    def _add_argparse_args(cls, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--engine_silence_minutes", type=float, default=240.0)
        parser.add_argument("--engine_page", default="")
        parser.add_argument("--engine_name", default="")


class EngineRunner(portable_runner.PortableRunner):
    """Submits a pipeline as a job whose name holds the node's, and cancels it when submitting is interrupted."""

    def create_job_service_handle(self, job_service: Any, options: PipelineOptions) -> "_JobHandle":
        """The handle through which the pipeline is prepared, staged and run."""
        return _JobHandle(job_service, options)

    def run_portable_pipeline(self, pipeline: Any, options: PipelineOptions) -> "EngineResult":
        """Starts the job; returns its result to wait for."""
        cloud = options.view_as(GoogleCloudOptions)
        node = progress.node_at_work().lower()
        cloud.job_name = cloud.job_name or "-".join(filter(None, ("byol", node, uuid.uuid4().hex[:12])))
        with _terminated_as_exit(), _jobs_of_name_cancelled(options):
            result = super().run_portable_pipeline(pipeline, options)
        return EngineResult(result, options)


class _JobHandle(portable_runner.JobServiceHandle):
    def prepare(self, proto_pipeline: Any) -> Any:
        return self.job_service.Prepare(
            beam_job_api_pb2.PrepareJobRequest(
                job_name=self.options.view_as(GoogleCloudOptions).job_name,
                pipeline=proto_pipeline,
                pipeline_options=self.get_pipeline_options(),
            ),
            timeout=self.timeout,
        )

    def run(self, preparation_id: str) -> tuple[str, Any, Any]:
        run = self.job_service.Run(beam_job_api_pb2.RunJobRequest(preparation_id=preparation_id))
        messages = self.job_service.GetMessageStream(beam_job_api_pb2.JobMessagesRequest(job_id=run.job_id))
        return run.job_id, messages, iter(())


class EngineResult(portable_runner.PipelineResult):
    """A job on an engine.

    Args:
        submitted: what Beam's runner returned.
        options: of the pipeline; those of `EngineOptions` among them.
    """

    def __init__(self, submitted: portable_runner.PipelineResult, options: PipelineOptions) -> None:
        super().__init__(
            **{
                name: getattr(submitted, f"_{name}")
                for name in ("job_service", "job_id", "message_stream", "state_stream", "cleanup_callbacks")
            }
        )
        chosen = options.view_as(EngineOptions)
        self._endpoint = options.view_as(PortableOptions).job_endpoint
        self._silence = 60.0 * chosen.engine_silence_minutes
        self._page = chosen.engine_page
        self._options = options
        self._heard = time.monotonic()

    @property
    def job_id(self) -> str:
        """The engine's id of the job."""
        return str(self._job_id)

    def said(self) -> str:
        """What the engine said last, errors first, in one line; "" when it said nothing."""
        responses = [m.message_response for m in self._messages if m.HasField("message_response")]
        errors = [response for response in responses if response.importance == _ERROR]
        text = (errors or responses)[-1].message_text if responses else ""
        return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "")

    def messages(self) -> str:
        """Everything the engine said."""
        return "\n".join(m.message_response.message_text for m in self._messages)

    def wait_until_finish(self, duration: float | None = None) -> str:
        """Waits for the job, and cancels it when the waiting is interrupted or fails.

        Args:
            duration: the longest wait in milliseconds; None for none.

        Returns:
            The state: one of the job's end, or the present one when the duration is over.

        Raises:
            EngineError: the engine was silent for too long, or its job server is gone.
            RuntimeError: the job failed; the last line is the cause.
        """
        reader = threading.Thread(target=self._read_messages, name="beam-messages", daemon=True)
        reader.start()
        until = None if duration is None else time.monotonic() + duration / 1000
        with _terminated_as_exit():
            try:
                state = self._watch(until)
            except BaseException:
                self.cancel()
                raise
        if state in portable_runner.TERMINAL_STATES:
            reader.join(_CALL_SECONDS)
            self._cleanup()
        self._state = self.runner_api_state_to_pipeline_state(state)
        if state in portable_runner.TERMINAL_STATES and state != beam_job_api_pb2.JobState.DONE:
            raise RuntimeError(
                f"The Beam job {self.job_id} at {self._endpoint} ended as {self._state}:\n{self._last_words()}"
            )
        return str(self._state)

    def cancel(self) -> None:
        """Ends the job on the engine; one that is gone or ended already is no error."""
        _cancel(self._job_service, self.job_id, self._options)
        self._cleanup()

    def _watch(self, until: float | None) -> int:
        """Follows the job's state to its end, or until then."""
        state, answered = -1, time.monotonic()
        while True:
            try:
                now = self._job_service.GetState(
                    beam_job_api_pb2.GetJobStateRequest(job_id=self.job_id), timeout=_CALL_SECONDS
                ).state
                answered = time.monotonic()
            except grpc.RpcError as error:
                if time.monotonic() - answered > min(_GONE_SECONDS, self._silence):
                    raise EngineError(
                        f"The job server at {self._endpoint} answers no more ({_code(error)}); "
                        f"the job {self.job_id} may be at work still. Start the job server again."
                    ) from None  # what a person is told is the innermost cause
                now = state
            if now != state:
                state, self._heard = now, time.monotonic()
                self._tell(state)
            if state in portable_runner.TERMINAL_STATES or (until and time.monotonic() > until):
                return state
            if time.monotonic() - self._heard > self._silence:
                raise EngineError(self._silent(state))
            time.sleep(_POLL_SECONDS)

    def _tell(self, state: int) -> None:
        where = f", {self._page}" if self._page else ""
        name = self.runner_api_state_to_pipeline_state(state)
        _LINES.info("Beam job %s at %s: %s%s", self.job_id, self._endpoint, name, where)

    def _silent(self, state: int) -> str:
        name = self.runner_api_state_to_pipeline_state(state)
        said = self.said()
        last = f"it said last: {said}" if said else "it said nothing"
        return (
            f"The engine at {self._endpoint} has made no progress for {self._silence / 60:g} min: the job "
            f"{self.job_id} is {name}, {last}. Look at the engine's slots and at its workers; "
            "beam.silence_minutes is the limit."
        )

    def _last_words(self) -> str:
        responses = [m.message_response for m in self._messages if m.HasField("message_response")]
        errors = [response.message_text for response in responses if response.importance == _ERROR]
        said = errors[-1] if errors else "the engine gave no reason; its own log has one"
        return with_what_mends_it(said, self._options)

    def _read_messages(self) -> None:
        try:
            for message in self._message_stream:
                self._heard = time.monotonic()
                self._messages.append(message)
                if message.HasField("message_response"):
                    response = message.message_response
                    level = portable_runner.MESSAGE_LOG_LEVELS[response.importance]
                    logging.getLogger(__name__).log(level, "%s", response.message_text)
        except grpc.RpcError as error:
            logging.getLogger(__name__).info("The engine's messages ended: %s", _code(error))


def pool_command() -> str:
    """The command that starts the workers, as it stands on this machine."""
    return f"{sys.executable} -m pipeline.run.worker_pool --port 50000"


def at_pool(options: PipelineOptions) -> str:
    """Where the engine asks for workers, as words behind "workers" or "pool"; none if no pool is asked."""
    environment = options.view_as(PortableOptions)
    return f" at {environment.environment_config}" if environment.environment_type == "EXTERNAL" else ""


def with_what_mends_it(said: str, options: PipelineOptions) -> str:
    """What an engine said of a job that failed, and what to do where it means that a worker went."""
    if not (_WORKER_GONE.search(said) and at_pool(options)):
        return said
    return (
        f"{said.rstrip().rstrip('.')}. A worker or the pool{at_pool(options)} is gone: start it again where the "
        f"engine's tasks run, {pool_command()}, then the same command"
    )


def _cancel(job_service: Any, job_id: str, options: PipelineOptions) -> None:
    """Ends a job: at the job server first, so that it does not hand it over any more, then on the engine itself."""
    try:
        ended = _cancel_at_job_server(job_service, job_id)
    except grpc.RpcError as error:
        ended = False
        _LINES.info("Beam job %s could not be ended: %s", job_id, _code(error))
    chosen = options.view_as(EngineOptions)
    if chosen.engine_name == FLINK:
        _end_on_flink(options.view_as(GoogleCloudOptions).job_name, chosen.engine_page)
    elif ended:
        _LINES.info("Beam job %s is ended.", job_id)


def _cancel_at_job_server(job_service: Any, job_id: str) -> bool:
    """Asks the job server to end a job, and waits a little for it; returns whether it says that it is ended."""
    until = time.monotonic() + _CALL_SECONDS
    job_service.Cancel(beam_job_api_pb2.CancelJobRequest(job_id=job_id), timeout=_CALL_SECONDS)
    while time.monotonic() < until:
        request = beam_job_api_pb2.GetJobStateRequest(job_id=job_id)
        if job_service.GetState(request, timeout=_CALL_SECONDS).state in portable_runner.TERMINAL_STATES:
            return True
        time.sleep(_POLL_SECONDS)
    return False


def _end_on_flink(name: str, page: str) -> None:
    if not page:
        _LINES.info(
            "Flink may be at work on the job %s still: look at its page. With beam.page, the address of its REST API, "
            "it is ended there as well.",
            name,
        )
        return
    try:
        flink_jobs.end(page, name, _ENDING_SECONDS)
        _LINES.info("Beam job %s is ended.", name)
    except flink_jobs.FlinkError as error:
        _LINES.info("Flink has not ended the job %s: %s. End it on %s by hand.", name, error, page)


@contextlib.contextmanager
def _jobs_of_name_cancelled(options: PipelineOptions) -> Iterator[None]:
    """When the block is left by an exception: between asking for a job and its id, only its name is known."""
    try:
        yield
    except BaseException:
        name = options.view_as(GoogleCloudOptions).job_name
        with grpc.insecure_channel(options.view_as(PortableOptions).job_endpoint) as channel:
            service = portable_runner.beam_job_api_pb2_grpc.JobServiceStub(channel)
            for job in _jobs(service):
                if job.job_name == name and job.state not in portable_runner.TERMINAL_STATES:
                    _cancel(service, job.job_id, options)
        raise


def _jobs(service: Any) -> list[Any]:
    try:
        return list(service.GetJobs(beam_job_api_pb2.GetJobsRequest(), timeout=_CALL_SECONDS).job_info)
    except grpc.RpcError:
        return []


@contextlib.contextmanager
def _terminated_as_exit() -> Iterator[None]:
    """Makes SIGTERM an exception inside the block, where nobody else has a use for it."""
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return

    def leave(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _code(error: grpc.RpcError) -> str:
    """What a failed call says, in one line."""
    code = error.code().name if isinstance(error, grpc.Call) else type(error).__name__
    details = error.details() if isinstance(error, grpc.Call) else ""
    return f"{code}: {details}" if details else code
