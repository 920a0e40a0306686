"""Ends a job on Flink itself, by Flink's REST API, where Beam's job server has only let go of it.

Flink runs a batch job inside one blocking call of Beam's job server. Cancelling interrupts that call and reports
CANCELLED (Beam 2.59 to 2.70, JobInvocation.cancel: what would cancel on the engine is called for a call that returned
alone); Flink is told nothing, and the job goes on, holds its slots and writes.
"""

import json
import time
from typing import Any

# https://nightlies.apache.org/flink/flink-docs-stable/docs/ops/rest_api/
ENDED = frozenset({"FINISHED", "CANCELED", "FAILED"})
_CALL_SECONDS = 10.0
_POLL_SECONDS = 0.5
_SUBMITTING_SECONDS = 5.0  # a job that the job server was about to hand over appears within


class FlinkError(RuntimeError):
    """A job is not known to have ended on Flink; the reason is the message, one line."""


def end(page: str, name: str, seconds: float) -> list[str]:
    """Ends the jobs of a name on Flink, and waits for them to be ended.

    Args:
        page: address of Flink's REST API, which is that of its dashboard, such as "http://host:8081".
        name: of the jobs; one that a single submission has.
        seconds: the longest wait.

    Returns:
        The ids of the jobs that were ended; none when all of that name had ended before, or none had begun.

    Raises:
        FlinkError: Flink was not reached, answered something else, or the job did not end in time.
    """
    begun = time.monotonic()
    asked: set[str] = set()
    while True:
        states = _states(page, name)
        at_work = {job for job, state in states.items() if state not in ENDED}
        if not at_work and (states or time.monotonic() > begun + min(seconds, _SUBMITTING_SECONDS)):
            return sorted(asked)
        for job in sorted(at_work - asked):
            _call("PATCH", page, f"jobs/{job}?mode=cancel")
        asked |= at_work
        if time.monotonic() > begun + seconds:
            raise FlinkError(f"it was asked to, and is at work still after {seconds:g} s: job {min(at_work)}")
        time.sleep(_POLL_SECONDS)


def _states(page: str, name: str) -> dict[str, str]:
    listed = _json(_call("GET", page, "jobs/overview"))
    try:
        return {job["jid"]: job["state"] for job in listed["jobs"] if job["name"] == name}
    except (KeyError, TypeError):
        raise FlinkError(f"{page} has another answer than Flink's list of jobs") from None


def _call(method: str, page: str, path: str) -> bytes:
    import urllib3

    address = f"{page.rstrip('/')}/{path}"
    try:
        with urllib3.PoolManager() as pool:
            answer = pool.request(method, address, timeout=_CALL_SECONDS, retries=False)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        raise FlinkError(f"{method} {address}: {type(error).__name__}") from None
    if not 200 <= answer.status < 300:
        raise FlinkError(f"{method} {address} was answered with status {answer.status}")
    return bytes(answer.data)


def _json(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except ValueError:
        return None
