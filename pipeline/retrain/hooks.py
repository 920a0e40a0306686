"""Tells other programs how a retraining ended, or what a person decided: a command, or a POST, tried again."""

import base64
import contextlib
import dataclasses
import json
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable
from typing import Literal, get_args

from components.gate.misses import Miss

Kind = Literal["pushed", "refused", "failed", "candidate", "rejected", "rollback", "odd"]
KINDS: tuple[Kind, ...] = get_args(Kind)
_WORDS = dict(zip(KINDS, KINDS, strict=True)) | {
    "candidate": "waits for approval",
    "rollback": "rolled back",
    "odd": "odd things among the spans",
}
_WEB = ("http", "https")
# htps://host, https:/host, https//host: what was meant for an address, and is a command to nobody.
_MISSPELT = re.compile(r"[a-z][a-z0-9+.-]*:/|h?t{1,3}ps?[:;/]", re.IGNORECASE)
_STANDARD_ERROR = 2
# Between the polite and the impolite end of a command that hangs.
_GRACE_SECONDS = 2.0
# Linux takes 128 KiB in one variable; a reason is a sentence.
_LONGEST_VARIABLE = 4096
# What a server answers that may answer otherwise later; other statuses from 300 on are final.
_TRY_AGAIN = frozenset({408, 429, *range(500, 600)})


@dataclasses.dataclass(frozen=True)
class Event:
    """How one retraining ended, or what a person decided.

    Attributes:
        kind: `pushed`, `refused` (by the gate), `failed`, `candidate` (it waits for approval), `rejected` or
            `rollback` (by a person), `odd` (something among the spans will not be trained on by itself).
        at: when, in UTC, as ISO 8601.
        root: the folder of the run.
        run_id: None when no run was begun.
        spans: the numbers of the spans that were trained on.
        version: the pushed version; None when none was.
        accuracy: in [0, 1], of the linear probe on the test split; None when it was not reached.
        reason: one sentence; what else there is to say is in `findings`.
        seconds: from start to end.
        findings: a sentence for each span that was not taken, or each odd thing among the spans.
        report: address of the run's report; "" without one.
        by: who decided, where a person did.
        missed: what the gate asked and did not get; empty but for a model that it refused.
        id: the same however often the event is told, and of no other event.
    """

    kind: Kind
    at: str
    root: str
    run_id: str | None
    spans: tuple[int, ...]
    version: int | None
    accuracy: float | None
    reason: str
    seconds: float
    findings: tuple[str, ...] = ()
    report: str = ""
    by: str = ""
    missed: tuple[Miss, ...] = ()
    id: str = dataclasses.field(default_factory=lambda: secrets.token_hex(16))

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"There is no event {self.kind!r}. Known: {', '.join(KINDS)}.")

    def to_json(self) -> str:
        """One JSON object, with the attributes and `text` for keys; what is not known is null."""
        return json.dumps(dataclasses.asdict(self) | {"text": self.text})

    @property
    def text(self) -> str:
        """All of it in a line for people, under the name that Slack, Mattermost and Rocket.Chat show."""
        facts = [
            f"version {self.version}" if self.version is not None else "",
            f"accuracy {self.accuracy:.2%}" if self.accuracy is not None else "",
            f"spans {', '.join(map(str, self.spans))}" if self.spans else "",
            f"by {self.by}" if self.by else "",
        ]
        head = f"BYOL {self.root}: {', '.join([_WORDS[self.kind], *filter(None, facts)])}"
        tail = [self.reason.rstrip("."), *(finding.rstrip(".") for finding in self.findings), self.report]
        return ". ".join([head, *filter(None, tail)])

    def to_environment(self) -> dict[str, str]:
        """`BYOL_EVENT` for the kind and `BYOL_<ATTRIBUTE>` for the others; what is not known is empty.

        `BYOL_MISSED` has a line a miss: what, on which pictures, asked, measured, short by.
        """
        values = dataclasses.asdict(self) | {
            "spans": ",".join(map(str, self.spans)),
            "findings": "\n".join(self.findings),
            "text": self.text,
            "missed": "\n".join(" | ".join(miss.cells) for miss in self.missed),
        }
        values["event"] = values.pop("kind")
        return {f"BYOL_{name.upper()}": _variable(value) for name, value in values.items()}


@dataclasses.dataclass(frozen=True)
class HookConfig:
    """What is told of each kind of event, and with how much patience.

    Attributes:
        on_pushed, on_refused, on_failed, on_candidate, on_rejected, on_rollback, on_odd: a command line, split as a
            shell does but run without one; an address that begins with http:// or https://; or nothing.
        attempts: how often one hook is tried.
        wait_seconds: before the second attempt; doubled before each further one.
        timeout_seconds: that one attempt may take.
    """

    on_pushed: str = dataclasses.field(default="", repr=False)
    on_refused: str = dataclasses.field(default="", repr=False)
    on_failed: str = dataclasses.field(default="", repr=False)
    on_candidate: str = dataclasses.field(default="", repr=False)
    on_rejected: str = dataclasses.field(default="", repr=False)
    on_rollback: str = dataclasses.field(default="", repr=False)
    on_odd: str = dataclasses.field(default="", repr=False)
    attempts: int = 3
    wait_seconds: float = 2.0
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.wait_seconds < 0 or self.timeout_seconds <= 0:
            raise ValueError(
                "A hook needs at least 1 attempt, no wait below 0 s and a timeout above 0 s; received "
                f"{self.attempts}, {self.wait_seconds} and {self.timeout_seconds}."
            )
        for kind in KINDS:
            _check(kind, self.of(kind))

    def of(self, kind: str) -> str:
        """The hook of one kind of event; empty if there is none."""
        return getattr(self, f"on_{kind}")


class _AttemptError(Exception):
    """An attempt failed; `final` says that another one would fail the same."""

    def __init__(self, message: str, final: bool = False) -> None:
        super().__init__(message)
        self.final = final


def deliver(event: Event, config: HookConfig) -> list[str]:
    """Runs the hook of this kind of event, and waits for it.

    It may take `attempts` times `timeout_seconds`, and the waits between. A hook that answered too late is called
    again, so it may be told of one event twice; `id` is the same then.

    Returns:
        A sentence for the log about a hook that failed in all its attempts; nothing when all went well, or when there
        is no hook. It names neither arguments of a command nor more of an address than its server: they may be secret.
    """
    hook = config.of(event.kind)
    if not hook:
        return []
    if _is_web(hook):
        name, attempt = _server(hook), _poster(hook, event, config.timeout_seconds)
    else:
        name, attempt = shlex.split(hook)[0], _runner(hook, event, config.timeout_seconds)
    problem, tried = _persist(attempt, config)
    if problem is None:
        return []
    times = "1 attempt" if tried == 1 else f"{tried} attempts"
    return [f"The hook on_{event.kind} ({name}) was not delivered in {times}: {problem}"]


def _persist(attempt: Callable[[], None], config: HookConfig) -> tuple[str | None, int]:
    """Tries until it works, or it is pointless; the last problem, and how often it was tried."""
    for number in range(1, config.attempts + 1):
        try:
            attempt()
        except _AttemptError as error:
            if error.final or number == config.attempts:
                return str(error), number
        else:
            break
        time.sleep(config.wait_seconds * 2 ** (number - 1))
    return None, number


def _runner(hook: str, event: Event, timeout: float) -> Callable[[], None]:
    """An attempt to run the command."""
    words, body = shlex.split(hook), event.to_json().encode()
    environment = os.environ | event.to_environment()

    def attempt() -> None:
        # In memory: a full disk is one of the events that have to get through.
        with os.fdopen(os.memfd_create("event"), "w+b") as event_file:
            event_file.write(body)
            event_file.seek(0)
            try:
                process = subprocess.Popen(
                    words,
                    stdin=event_file,
                    # Its words belong into the log of the retraining.
                    stdout=_STANDARD_ERROR,
                    stderr=_STANDARD_ERROR,
                    env=environment,
                    start_new_session=True,
                )
            except OSError as error:
                raise _AttemptError(
                    f"it cannot be started ({error.strerror}); expected an executable program, found on the PATH or "
                    "by its whole path.",
                    final=True,
                ) from error
        _await(process, timeout)

    return attempt


def _await(process: "subprocess.Popen[bytes]", timeout: float) -> None:
    try:
        status = process.wait(timeout)
    except subprocess.TimeoutExpired as error:
        raise _AttemptError(
            f"it took more than {timeout:g} s and was ended; expected an end within that time. Make it faster, or "
            "raise the timeout."
        ) from error
    finally:
        if process.returncode is None:
            _end_group(process)
    if status != 0:
        ended = f"by signal {-status}" if status < 0 else f"with status {status}"
        raise _AttemptError(
            f"it ended {ended}; expected status 0. What it wrote is in the log; run it by hand to see more."
        )


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """Ends a command with the children it started; what may not be ended, such as sudo, is left alone."""
    # The children may ignore what the parent obeys, hence the second signal.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(OSError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_SECONDS)


def _poster(hook: str, event: Event, timeout: float) -> Callable[[], None]:
    """An attempt to post to the address."""
    body = event.to_json().encode()

    def attempt() -> None:
        problems: list[_AttemptError | None] = []
        # urllib3's own timeouts leave out the name server, and begin anew with every byte of an answer.
        thread = threading.Thread(
            target=lambda: problems.append(_post_problem(hook, body, timeout)), daemon=True
        )
        thread.start()
        thread.join(timeout)
        problem = problems[0] if problems else _AttemptError(_too_slow(timeout))
        if problem is not None:
            raise problem

    return attempt


def _post_problem(hook: str, body: bytes, timeout: float) -> _AttemptError | None:
    """Posts once; what went wrong, if anything did."""
    import urllib3

    try:
        status = _post(hook, body, timeout)
    except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
        return _AttemptError(_why(error, timeout))
    if 200 <= status < 300:
        return None
    return _AttemptError(_answered(status), final=status not in _TRY_AGAIN)


def _post(hook: str, body: bytes, timeout: float) -> int:
    """Posts once; the status of the answer."""
    import urllib3

    parts = urllib.parse.urlsplit(hook)
    headers = {"Content-Type": "application/json", "User-Agent": "byol-tfx"}
    if parts.username is not None:
        pair = f"{urllib.parse.unquote(parts.username)}:{urllib.parse.unquote(parts.password or '')}"
        headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    with urllib3.PoolManager() as pool:
        answer = pool.request(
            "POST",
            address,
            body=body,
            headers=headers,
            timeout=timeout,
            retries=False,
            redirect=False,
            # The status says it all; a body could be without end.
            preload_content=False,
        )
        answer.close()
        return answer.status


def _answered(status: int) -> str:
    if status in {401, 403}:
        return f"the answer was status {status}; expected 200 to 299. Check the user, password or token."
    if 300 <= status < 400:
        return f"the answer was status {status}, a redirection; expected 200 to 299. Give the final address."
    return f"the answer was status {status}; expected 200 to 299. Check the address and the server."


def _why(error: Exception, timeout: float) -> str:
    """What went wrong, without urllib3's words, which repeat the address."""
    import urllib3

    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, OSError) and cause.strerror):
        cause = cause.__cause__ or cause.__context__
    # In this order: to urllib3 1.26 a refused connection is a timeout, too.
    if cause is None and isinstance(error, urllib3.exceptions.TimeoutError):
        return _too_slow(timeout)
    told = cause.strerror if isinstance(cause, OSError) else type(error).__name__
    return (
        f"no answer ({told}); expected a status from 200 to 299. Check the address and that the server runs."
    )


def _too_slow(timeout: float) -> str:
    return f"no answer within {timeout:g} s; expected a status from 200 to 299. Check the server, or raise the timeout."


def _check(kind: str, hook: str) -> None:
    """A hook that could never work is named before anything is trained; its text may be secret and is not."""
    usable = _names_a_server(hook) if _is_web(hook) else not hook or bool(_words(hook))
    if not usable or "\0" in hook:
        raise ValueError(
            f"on_{kind} is neither a command line such as 'notify.sh --now', with its quotes closed, nor an address "
            "such as https://example.org/hook, with a server and at most a port number."
        )
    first = next(iter(hook.split()), "")
    if not _is_web(hook) and _MISSPELT.match(first) and shutil.which(first) is None:
        raise ValueError(
            f"on_{kind} begins as an address does, but with neither http:// nor https://. Correct the beginning, or "
            "give a command line."
        )


def _names_a_server(address: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(address)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


def _is_web(hook: str) -> bool:
    return hook.partition("://")[0].lower() in _WEB


def _server(address: str) -> str:
    """Of an address no more than its server: user, path and query may hold a secret."""
    parts = urllib.parse.urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}/..."


def _variable(value: object) -> str:
    return "" if value is None else str(value).replace("\0", " ")[:_LONGEST_VARIABLE]
