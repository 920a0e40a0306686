"""What monitoring sees of a retraining: a heartbeat file, and the same in Prometheus' text format."""

import contextlib
import dataclasses
import datetime
import json
import os
import pathlib
import time
import typing
from collections.abc import Iterable, Iterator

from components.staging import write_atomically

if typing.TYPE_CHECKING:
    from prometheus_client.core import Metric

FOLDER = "retraining"
HEARTBEAT_FILE = "heartbeat.json"
METRICS_FILE = "byol.prom"
# Those with which the machinery did what it is for; the gate's refusal (3) is such an end.
_SUCCESSFUL = (0, 3)
_FAULTS = (1, 2)
_REFUSED = "byol_spans_refused"
_TIME = "_timestamp_seconds"
_LAST_PUSH = "byol_last_push_timestamp_seconds"
_GAUGES = {
    "byol_last_attempt_timestamp_seconds": "Start of the last retraining, in seconds since 1970.",
    "byol_last_success_timestamp_seconds": "Last end with exit status 0 or 3: the data was looked at and decided on.",
    _LAST_PUSH: "When the newest version was pushed, by a retraining or an approval; no rollback.",
    "byol_last_run_duration_seconds": "From start to end of the last retraining that ended.",
    "byol_last_exit_status": "Of the last retraining that ended: 0, 1, 2, 3 or 130.",
    "byol_accuracy": "Linear probe on the test split of the last retraining that was evaluated, in [0, 1].",
    "byol_served_version": "Number of the version that is served.",
    "byol_served_accuracy": "Linear probe on the test split of the served version, in [0, 1].",
    "byol_spans_odd": "Folders that look like spans and are none, lack their marker, or changed after acceptance.",
    "byol_spans_waiting": "Complete spans that were not trained on yet when the last retraining ended.",
}
_COUNTERS = {_REFUSED: "New spans whose data was refused, or from which nothing was pushed."}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a retraining ended, for monitoring; None leaves what was known before.

    Attributes:
        exit_status: that the command is about to end with.
        seconds: from start to end; None where nothing was done.
        pushed_at: when the newest version was pushed, in seconds since 1970.
        accuracy: of the run, in [0, 1].
        served_version: number of the version that is served now.
        served_accuracy: of that version, in [0, 1].
        spans_waiting: complete spans that were not used yet.
        spans_odd: how many things among the spans will not be trained on by themselves.
        spans_refused: how many new spans were refused now, for their data or by the gate; added up over the years.
        detail: one sentence for the heartbeat.
    """

    exit_status: int
    seconds: float | None
    pushed_at: float | None = None
    accuracy: float | None = None
    served_version: int | None = None
    served_accuracy: float | None = None
    spans_waiting: int | None = None
    spans_odd: int | None = None
    spans_refused: int = 0
    detail: str = ""

    def measures(self, now: float) -> dict[str, float]:
        """The metrics that this outcome sets, by name."""
        found: dict[str, float | None] = {
            "byol_last_success_timestamp_seconds": now if self.exit_status in _SUCCESSFUL else None,
            _LAST_PUSH: self.pushed_at,
            "byol_last_run_duration_seconds": self.seconds,
            "byol_last_exit_status": self.exit_status,
            "byol_accuracy": self.accuracy,
            "byol_served_version": self.served_version,
            "byol_served_accuracy": self.served_accuracy,
            "byol_spans_waiting": self.spans_waiting,
            "byol_spans_odd": self.spans_odd,
        }
        return {name: float(value) for name, value in found.items() if value is not None}


class VitalSigns:
    """The heartbeat and the metrics of one root; to be used by the process that holds the root's lock.

    Every method returns sentences for the log about what could not be written, and raises nothing: monitoring never
    stops a retraining. The metrics carry the root as a label, links and dots resolved, so one machine may have several.

    Args:
        root: folder of the runs.
        textfile: where Prometheus' node_exporter looks (`--collector.textfile.directory`): a file of that folder, one
            for each root, whose name ends in `.prom`. `<root>/retraining/byol.prom` if left out.

    Raises:
        ValueError: the file's name does not end so, and node_exporter would pass over it.
    """

    def __init__(self, root: pathlib.Path, textfile: pathlib.Path | None = None) -> None:
        if textfile is not None and textfile.suffix != ".prom":
            raise ValueError(
                f"The file of metrics is {textfile}; node_exporter reads names that end in .prom, such as "
                f"{textfile / METRICS_FILE}."
            )
        self._root = root.absolute()
        self.heartbeat = self._root / FOLDER / HEARTBEAT_FILE
        self.textfile = textfile or self._root / FOLDER / METRICS_FILE

    def started(self, detail: str = "") -> list[str]:
        """A retraining began to look for new data."""
        return self._write("looking", detail, {"byol_last_attempt_timestamp_seconds": time.time()})

    def training(self, detail: str = "") -> list[str]:
        """It found some and trains; to be called again as often as there is something to tell."""
        return self._write("training", detail, {})

    def finished(self, outcome: Outcome) -> list[str]:
        """It ended, in whatever way."""
        state = "failed" if outcome.exit_status in _FAULTS else "idle"
        return self._write(state, outcome.detail, outcome.measures(time.time()), outcome.spans_refused)

    def serves(
        self, version: int | None, accuracy: float | None, pushed_at: float | None = None
    ) -> list[str]:
        """Another version is served, by a person's word; nothing else has changed."""
        found = {
            "byol_served_version": version,
            "byol_served_accuracy": accuracy,
            _LAST_PUSH: pushed_at,
        }
        kept = _beat(self.heartbeat)
        changed = {name: float(value) for name, value in found.items() if value is not None}
        return self._write(kept.get("state", "idle"), kept.get("detail", ""), changed)

    def _write(self, state: str, detail: str, changed: dict[str, float], refused: int = 0) -> list[str]:
        now = time.time()
        # A clock that was ahead is mended since: what it wrote was not later than now.
        before = {
            name: min(value, now) if name.endswith(_TIME) else value
            for name, value in self._measures().items()
        }
        measures = before | changed
        if measures.get(_LAST_PUSH, 0.0) > now:
            measures[_LAST_PUSH] = before.get(_LAST_PUSH, now)
        if _LAST_PUSH in before:  # a version that was retired since was pushed all the same
            measures[_LAST_PUSH] = max(before[_LAST_PUSH], measures[_LAST_PUSH])
        measures[_REFUSED] = measures.get(_REFUSED, 0.0) + refused
        beat = {
            "at": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "state": state,
            "pid": os.getpid(),
            "detail": detail,
            "metrics": str(self.textfile),
            "measures": measures,
        }
        problems = []
        try:
            write_atomically(self.heartbeat, json.dumps(beat, indent=2) + "\n")
        except OSError as error:
            problems.append(_not_written("heartbeat", self.heartbeat, error))
        try:
            self._write_metrics(measures)
        except OSError as error:
            problems.append(_not_written("metrics", self.textfile, error))
        return problems

    def _measures(self) -> dict[str, float]:
        """What was known before; nothing of a file that a crash left broken."""
        known = {*_GAUGES, *_COUNTERS}
        with contextlib.suppress(ValueError, AttributeError, TypeError):
            found = _beat(self.heartbeat).get("measures", {})
            return {name: float(value) for name, value in found.items() if name in known}
        return {}

    def _write_metrics(self, measures: dict[str, float]) -> None:
        from prometheus_client import CollectorRegistry, write_to_textfile

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Measures(str(self._root.resolve()), measures))
        write_to_textfile(str(self.textfile), registry)


def known(root: pathlib.Path) -> VitalSigns:
    """The vital signs of a root, with the file of metrics that its last retraining wrote."""
    usual = VitalSigns(root)
    told = _beat(usual.heartbeat).get("metrics")
    return VitalSigns(root, pathlib.Path(told)) if isinstance(told, str) and told.endswith(".prom") else usual


def _beat(path: pathlib.Path) -> dict[str, typing.Any]:
    """The heartbeat as it is; nothing of one that a crash left broken."""
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text(encoding="utf-8"))
        return found if isinstance(found, dict) else {}
    return {}


class _Measures:
    """Hands Prometheus' client what is known; a gauge of its own would be 0 before it is known."""

    def __init__(self, root: str, measures: dict[str, float]) -> None:
        # A name that is no text still has to be written as text.
        self._root = os.fsencode(root).decode("utf-8", "replace")
        self._measures = measures

    def collect(self) -> Iterable["Metric"]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        yield from self._families(_GAUGES, GaugeMetricFamily)
        yield from self._families(_COUNTERS, CounterMetricFamily)

    def _families(self, described: dict[str, str], family: type) -> Iterator["Metric"]:
        for name, meaning in described.items():
            if name in self._measures:
                metric = family(name, meaning, labels=["root"])
                metric.add_metric([self._root], self._measures[name])
                yield metric


def _not_written(what: str, path: pathlib.Path, error: OSError) -> str:
    return (
        f"The {what} could not be written to {path} ({error.strerror}); expected a folder that this user may write "
        "to. The retraining goes on without."
    )
