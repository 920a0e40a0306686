"""A retraining's runs on Kubeflow Pipelines: the volume remembers, the server runs, and nobody has to wait.

A run has a name that is made of what was asked for, and is on the volume before it is on the server. So whoever asks
again, after a cut or in the next night, gets the run that is there and what came of it.
"""

import dataclasses
import hashlib
import json
import pathlib
import shutil
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from components.serving import serving_folder
from components.staging import read_either, write_twice
from kubeflow import volume
from kubeflow.config import Decided, KubeflowConfig
from kubeflow.server import ENDED, ServerError
from pipeline import nodes
from pipeline.console import DataRefusedError, NodeFailedError
from pipeline.retrain.place import Asked, PlaceError, Served, StillAtWorkError, Trained
from pipeline.retrain.retraining import judged_by
from pipeline.root import Root
from pipeline.spans import arrivals

if TYPE_CHECKING:
    from kubeflow.server import Server

Notes = Mapping[str, Mapping[str, Any]]
SUCCEEDED = "SUCCEEDED"
_ENDED = ENDED | {""}
_POLL_SECONDS = 30.0
_BOOK, _NOTES = "cluster.json", "notes"


class Runs(Protocol):
    """The runs of a server."""

    def start(self, asked: Asked, decided: Decided, name: str) -> str:
        """Starts a run; returns its id."""

    def named(self, name: str) -> str | None:
        """The id of a run of this name; None if there is none."""

    def state(self, run: str) -> str:
        """KFP's word for a run's state; "" if the server knows no such run any more."""

    def end(self, run: str) -> str:
        """Ends a run that is at work; says what its steps were at, in words."""


@dataclasses.dataclass(frozen=True)
class ServerRuns:
    """Runs of the compiled pipeline on a server; `start` imports TFX.

    Attributes:
        server: where.
        cluster: what steps get.
        experiment: made if there is none of that name.
        account: Kubernetes service account of the steps; "" for KFP's own.
    """

    server: "Server"
    cluster: KubeflowConfig
    experiment: str
    account: str

    def start(self, asked: Asked, decided: Decided, name: str) -> str:
        """Compiles what was decided and submits it.

        Raises:
            ValueError: it cannot be compiled, and why.
            ServerError: the server refused.
        """
        from kubeflow.compiler import compile_pipeline

        records = asked.records
        compiled = compile_pipeline(
            asked.config,
            self.cluster,
            records.span,
            decided=decided,
            data_set=records.data_set,
            newest_labelled=records.test_labelled,
        )
        return self.server.submit(compiled, name, self.experiment, self.account)

    def named(self, name: str) -> str | None:
        """As the server has it."""
        return self.server.run_named(name)

    def state(self, run: str) -> str:
        """As the server has it."""
        return self.server.state(run)

    def end(self, run: str) -> str:
        """By the server."""
        states = self.server.task_states(run)
        self.server.terminate(run)
        open_ones = sorted(f"{task} {state}" for task, state in states.items() if state not in ENDED)
        return ", ".join(open_ones) or "no step had begun"


@dataclasses.dataclass
class _Job:
    """One run: its name, its id and when it began, how often its work was begun before, and whether its end was told as
    a fault.
    """

    name: str
    run: str | None = None
    tries: int = 0
    told: bool = False
    since: float | None = None  # seconds since 1970, by this machine's clock


@dataclasses.dataclass(frozen=True)
class Cluster:
    """A `pipeline.retrain.place.Place`; the caller holds the lock of the volume's root.

    Attributes:
        root: the volume, as this process sees it.
        config: the volume, as steps see it, and what they get.
        runs: of the server.
        wait_seconds: how long a call waits for a run to end; then a later one takes up what comes of it.
        poll_seconds: between two looks at it.
    """

    root: Root
    config: KubeflowConfig
    runs: Runs
    wait_seconds: float = 0.0
    poll_seconds: float = _POLL_SECONDS

    def served(self) -> Served | None:
        """What is served; steps find model and networks by the version's number."""
        for version in serving_folder.versions(self._folder("serving")):
            if version.served and version.complete:
                restored = version.record.get("action") == serving_folder.ROLLBACK
                return Served(version.number, restored, model=version.number, pretrainer=version.number)
        return None

    def stored(self) -> set[int]:
        """Spans that KeptSpan kept."""
        return set(volume.spans(self._folder("store")))

    def look_at(self, asked: Asked) -> None:
        """A run of the steps up to KeptSpan."""
        self._finished(asked)
        if asked.records.span not in self.stored():  # kept then, and removed since
            self._forget(_key(asked))
            self._finished(asked)

    def train(self, asked: Asked) -> Trained:
        """A run of all steps."""
        job, notes = self._finished(asked)
        pushed, verdict = (
            _outputs(notes, *of)
            for of in ((nodes.PUSHER, nodes.PUSHED_MODEL), (nodes.VERDICT, nodes.VERDICT_REPORT))
        )
        is_pushed = int(pushed.get(nodes.PUSHED, 0)) == 1
        reason = (
            verdict.get(nodes.REASON) or pushed.get(nodes.NOT_PUSHED_REASON) or "the Pusher gave no reason"
        )
        return Trained(
            run_id=str(job.run),
            accuracy=float(verdict[nodes.ACCURACY]),
            version=int(pushed[nodes.PUSHED_VERSION]) if is_pushed else None,
            reason="" if is_pushed else str(reason),
            overtaken=int(pushed.get(nodes.OVERTAKEN, 0)) == 1,
            candidate=bool(pushed.get(nodes.CANDIDATE)),
        )

    def prune(self, keep_runs: int, keep_spans: int) -> int:
        """Removes older spans' Examples, and what is remembered of runs that ended before the newest."""
        kept = volume.spans(self._folder("store"))
        old = [kept[number] for number in sorted(kept)[:-keep_spans]]
        book = self._book()
        dropped = list(book)[:-keep_runs]
        old += [self._notes_folder(book.pop(key).name) for key in dropped]
        freed = sum(file.stat().st_size for folder in old for file in folder.rglob("*") if file.is_file())
        for folder in old:
            shutil.rmtree(folder, ignore_errors=True)
        if dropped:
            self._write(book)
        return freed

    def _finished(self, asked: Asked) -> tuple[_Job, Notes]:
        """The run that was asked for, and what its steps left; it is begun if it was not.

        Raises:
            DataRefusedError: a gate objects to the data; it says so whenever it is asked.
            NodeFailedError: it failed otherwise. Asked again, it is begun again.
            StillAtWorkError: it has not ended.
            PlaceError: the server cannot be asked.
        """
        try:
            key, job = self._begun(asked)
            state = self._waited_for(str(job.run))
            if state not in _ENDED:
                self._still_at_work(key, job)
        except ServerError as error:
            raise PlaceError(str(error)) from error
        notes = self._notes(job.name)
        if state == SUCCEEDED:
            return job, notes
        fault = _fault(notes) or NodeFailedError(
            f"Run {job.run}", state or "it is not on the server any more"
        )
        job.told = bool(asked.window) or not isinstance(fault, DataRefusedError)
        self._write({**self._book(), key: job})
        raise fault

    def _still_at_work(self, key: str, job: _Job) -> NoReturn:
        """Says that a run is at work, or ends it.

        Nothing of the file does: Kubernetes counts a pod's limit from when a node has taken it, Argo's limit of retries
        becomes that of a pod (workflow/controller/operator.go:1041 and workflowpod.go at 3.5.14), and KFP's file has no
        field for Argo's limit of a whole run.

        Raises:
            StillAtWorkError: it may go on.
            NodeFailedError: it had its time. Asked again, it is begun again.
            ServerError: it could not be ended.
        """
        hours = (time.time() - float(job.since or 0.0)) / 3600
        if hours < self.config.run_hours:
            raise StillAtWorkError(
                f"Run {job.run} ({job.name}) is at work; the next call takes up what comes of it"
            )
        steps = self.runs.end(str(job.run))
        job.told = True
        self._write({**self._book(), key: job})
        raise NodeFailedError(
            f"Run {job.run}",
            f"it was at work for {hours:.0f} hours (run_hours={self.config.run_hours:g}) and was ended; {steps}. "
            "`byol kubeflow check` tells what no node can take",
        )

    def _begun(self, asked: Asked) -> tuple[str, _Job]:
        """The run on the server, with its key; its name is on the volume first."""
        key = _key(asked)
        job = self._book().get(key)
        if job is None or job.told:
            tries = 0 if job is None else job.tries + 1
            what = "train" if asked.window else "look"
            job = _Job(f"byol-{what}-span-{asked.records.span}-{key[:12]}-{tries}", tries=tries)
            self._write({**self._book(), key: job})
        if job.run is None:
            job.run = self.runs.named(job.name) or self.runs.start(asked, self._decided(asked, job), job.name)
        if job.since is None:  # or of an earlier release
            job.since = time.time()
            self._write({**self._book(), key: job})
        return key, job

    def _decided(self, asked: Asked, job: _Job) -> Decided:
        folder = self._notes_folder(job.name).relative_to(self.root.path).as_posix()
        return Decided(
            compared=asked.compared,
            baseline=asked.baseline,
            window=asked.window,
            parent=asked.parent,
            notes=f"{self.config.volume.rstrip('/')}/{folder}",
        )

    def _waited_for(self, run: str) -> str:
        deadline = time.monotonic() + self.wait_seconds
        while (state := self.runs.state(run)) not in _ENDED and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)
        return state

    def _notes(self, name: str) -> Notes:
        return {
            path.stem: json.loads(read_either(path)) for path in self._notes_folder(name).glob("[!.]*.json")
        }

    def _forget(self, key: str) -> None:
        book = self._book()
        job = book.pop(key)
        self._write({**book, key: dataclasses.replace(job, told=True)})

    def _book(self) -> dict[str, _Job]:
        try:
            content = json.loads(read_either(self._book_file))
            return {key: _Job(**job) for key, job in content.items()}
        except FileNotFoundError:
            return {}
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"{self._book_file} is no list of runs: {error}. Move it away; runs at work are found by their names."
            ) from error

    def _write(self, book: Mapping[str, _Job]) -> None:
        content = {key: dataclasses.asdict(job) for key, job in book.items()}
        write_twice(self._book_file, json.dumps(content, indent=1) + "\n")

    @property
    def _book_file(self) -> pathlib.Path:
        return self.root.ledger.with_name(_BOOK)

    def _notes_folder(self, name: str) -> pathlib.Path:
        return self.root.ledger.parent / _NOTES / name

    def _folder(self, name: str) -> pathlib.Path:
        return self.root.path / getattr(self.config, name).strip("/")


def _key(asked: Asked) -> str:
    """Digest of what makes two runs the same.

    A training goes by what the ledger has of it, so that other settings in a later call take up the run at work; a look
    goes by the settings and the gates' code as well, and by the delivery.
    """
    what: list[Any] = [asked.records.span, asked.baseline, asked.window, asked.parent, asked.begun]
    if not asked.window:
        fingerprint = arrivals.fingerprint(asked.records.folder)
        what += [asked.compared, dataclasses.asdict(asked.config), judged_by(asked.config), fingerprint]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()


def _outputs(notes: Notes, node: str, output: str) -> Mapping[str, Any]:
    """The properties of a step's output.

    Raises:
        NodeFailedError: the step left no note of it.
    """
    try:
        return dict(notes[node]["outputs"][output])
    except KeyError as error:
        raise NodeFailedError(node, "it left no note of what came of it on the volume") from error


def _fault(notes: Notes) -> NodeFailedError | None:
    """What the step that failed has said, a gate's objection before any other fault."""
    failed = [
        (not note.get("refused"), node, str(note["failed"]))
        for node, note in notes.items()
        if "failed" in note
    ]
    for fault, node, reason in sorted(failed):
        return (NodeFailedError if fault else DataRefusedError)(node, reason)
    return None
