"""`byol run`, `retrain` and `rollback` over power cuts, on real file systems: the same command finishes as without.

    python -m benchmarks.power_cuts                                    as root: 28 moments on ext4, 28 on XFS
    python -m benchmarks.power_cuts --filesystem xfs --moments 4       fewer; `--moments all`, or `--moment NAME`
    python -m benchmarks.power_cuts --command rollback                 in seconds: no TFX is needed
    python -m benchmarks.power_cuts --apart                            a root of its own for each moment
    python -m benchmarks.power_cuts --list                             what the moments are

The root lies on a file system in a file, mounted by a loop device. At the moment the process itself shuts the file
system down by force (the ioctl GOINGDOWN of both drivers, without a sync) and kills its process group. The file system
is unmounted and mounted again, and the same command is called: up to the next moment, and after the last one until it
ends. Then the ledger, the versions, ML Metadata and the events of the hook are compared with those of a command that
nothing disturbed. So a command costs one run and a start for each moment; with `--apart` it is a run for each.

Of two neighbouring moments one loses the journal that was not on the disk yet (names and content go back to the last
sync), the other one gets it there first (names are new, content that was not synced is empty).

Needs root, `mkfs.ext4`, `mkfs.xfs` and a loop device. Prints a table; the exit status is 1 if a moment ended otherwise.
"""

import argparse
import ctypes
import dataclasses
import fcntl
import json
import multiprocessing
import os
import pathlib
import re
import runpy
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence

from components.data import synthetic
from components.serving import serving_folder
from pipeline import nodes
from pipeline.past import store_graph
from pipeline.root import Root
from pipeline.spans import arrivals, ledger

PROJECT = pathlib.Path(__file__).resolve().parents[1]
FILESYSTEMS = ("ext4", "xfs")
TRAIN_IMAGES, TEST_IMAGES = 600, 300
SETTINGS = (
    "pretraining.epochs=2",
    "pretraining.batch_size=64",
    "pretraining.optimizer.warmup_steps=5",
    "pretraining.monitor_images=50",
    "pretraining.checkpoint_minutes=0",
    "probe.epochs=5",
    "gate.minimum_accuracy=0",
    f"gate.class_floors={(0.0,) * 10}",
    "gate.minimum_gain=-1",
    "gate.maximum_regression=1",
    "gate.minimum_corrupted_accuracy=0",
    "gate.minimum_worst_corrupted_accuracy=0",
    "gate.minimum_label_agreement=0",
    f"gate.robustness_images={TEST_IMAGES}",
    f"gate.minimum_test_images={TEST_IMAGES}",
)
# EXT4_IOC_SHUTDOWN (fs/ext4/ext4.h) and XFS_IOC_GOINGDOWN (fs/xfs/libxfs/xfs_fs.h): _IOR('X', 125, __u32).
_GOING_DOWN = 0x8004587D
_CLONE_NEWNS = 0x00020000  # linux/sched.h; Python has os.unshare from 3.12 on
# What becomes of the journal in memory: the kernels' LOGFLUSH and NOLOGFLUSH.
JOURNALS = {"written": 1, "lost": 2}
# What most of a command's first seconds go to; nothing of this project, so that each call imports it anew.
_PRELOADED = [
    "tfx.orchestration.local.local_dag_runner",
    "keras",
    "tensorflow_transform",
    "tensorflow_model_analysis",
]
# What a training is compared by, of `ledger.Training`: all but times and what the store numbers anew.
_OF_A_TRAINING = (
    "window",
    "new",
    "warm_start",
    "parent",
    "baseline",
    "outcome",
    "reason",
    "accuracy",
    "attempts",
    "told",
)
AS_UNDISTURBED = "as undisturbed"
_CALLS = 3  # of the same command after the cut, at the most
_SECONDS = 900.0


@dataclasses.dataclass(frozen=True)
class Moment:
    """When the power goes.

    Attributes:
        name: in words.
        command: one of `COMMANDS`.
        event: pattern of what is about to happen, as `Trigger.told` has it.
        time: at which of these events.
    """

    name: str
    command: str
    event: str
    time: int = 1


def _after(command: str, *names: str) -> list[Moment]:
    return [Moment(f"right after {name}", command, f"complete {name}") for name in names]


_CHECKPOINT = r"checkpoints/[^/]+/\.\d+\.checkpoint.*\.npz"
_RUN = [
    *_after("run", nodes.EXAMPLE_GEN, "StatisticsGen", "ExampleValidator", nodes.ANOMALY_GATE),
    Moment("in Transform, while it writes pictures", "run", "write tfx/Transform/transformed_examples/.*", 2),
    Moment("Transform has written all, ML Metadata not", "run", f"publish {nodes.TRANSFORM}"),
    *_after("run", nodes.TRANSFORM),
    Moment("in a checkpoint, before it is on the disk", "run", f"sync {_CHECKPOINT}"),
    Moment("in a checkpoint, before it has its name", "run", r"rename checkpoints/[^/]+/checkpoint.*", 2),
    Moment("Pretrainer has written all, ML Metadata not", "run", f"publish {nodes.PRETRAINER}"),
    *_after("run", nodes.PRETRAINER, nodes.LINEAR_PROBE, "RandomProbe"),
    *_after("run", "RandomEvaluator", "Evaluator", "Robustness", "ServingCheck", nodes.VERDICT, "ModelCard"),
    Moment("in the push, while the model is copied", "run", r"write serving/\.staging-[^/]+/serving\.json"),
    Moment("in the push, before the version has its name", "run", r"rename serving/\d+"),
    Moment("in the push, before that name is on the disk", "run", "sync serving", 3),
    Moment("pushed, and ML Metadata does not know", "run", f"publish {nodes.PUSHER}"),
    *_after("run", nodes.PUSHER),
    Moment("before the summary has its name", "run", r"rename runs/[^/]+/summary\.json"),
    Moment("before the latest summary has its name", "run", r"rename latest/summary\.json"),
    Moment("in the report", "run", r"rename runs/[^/]+/report\.html"),
]
_LEDGER = r"rename retraining/ledger\.json"  # and what it says then, as `_says` has it
_RETRAIN = [
    *_after("retrain", nodes.EXAMPLE_GEN, nodes.LABEL_CHECK),
    Moment(
        "in the copy of the ledger, before it is on the disk", "retrain", r"sync retraining/\.\d+\.\.ledger.*"
    ),
    Moment("in the ledger, before it is on the disk", "retrain", r"sync retraining/\.\d+\.ledger\.json"),
    Moment("in the ledger: the span is accepted", "retrain", f"{_LEDGER} accepted"),
    Moment("in the ledger: the training is decided on", "retrain", f"{_LEDGER} decided"),
    *_after("retrain", nodes.TRANSFORM),
    Moment("in a checkpoint of a warm start", "retrain", f"sync {_CHECKPOINT}", 2),
    *_after("retrain", nodes.PRETRAINER, nodes.VERDICT),
    Moment("in the push, before the version has its name", "retrain", r"rename serving/\d+"),
    Moment("pushed, and ML Metadata does not know", "retrain", f"publish {nodes.PUSHER}"),
    *_after("retrain", nodes.PUSHER),
    Moment("in the ledger: the training has ended", "retrain", f"{_LEDGER} ended"),
    Moment("ended, and the event is not kept", "retrain", r"sync retraining/outbox/\.\d+\..*"),
    Moment("in the outbox, before the event has its name", "retrain", r"rename retraining/outbox/\d+.*"),
    Moment("in the ledger: the event is kept", "retrain", f"{_LEDGER} told"),
    Moment("told, and the event is still kept", "retrain", r"remove retraining/outbox/\d+.*"),
]
_ROLLBACK = [
    Moment("before the draft of its event has its name", "rollback", r"rename retraining/outbox/draft-.*"),
    Moment("while the model is copied", "rollback", r"write serving/\.staging-[^/]+/serving\.json"),
    Moment("before the highest number has its name", "rollback", r"rename serving/\.highest_version"),
    Moment("before the copied record has its name", "rollback", r"rename serving/\.record-\d+\.json"),
    Moment("before the version has its name", "rollback", r"rename serving/\d+"),
    Moment("before that name is on the disk", "rollback", "sync serving", 3),
    Moment("in the outbox, before the event has its name", "rollback", r"rename retraining/outbox/\d+.*"),
    Moment("told, and the event is still kept", "rollback", r"remove retraining/outbox/\d+.*"),
]
COMMANDS = ("run", "retrain", "rollback")
MOMENTS = [*_RUN, *_RETRAIN, *_ROLLBACK]


@dataclasses.dataclass(frozen=True)
class Call:
    """One call of the command, in a process of its own.

    Attributes:
        arguments: of `byol`.
        root: its root; what happens below it are the events.
        said: file for what it says.
        mount: of the file system that is shut down; None lets the command end.
        moment: when.
        journal: what becomes of the journal: a key of `JOURNALS`.
        events: file for the events in their order; None keeps none.
    """

    arguments: tuple[str, ...]
    root: pathlib.Path
    said: pathlib.Path
    mount: pathlib.Path | None = None
    moment: Moment | None = None
    journal: str = "lost"
    events: pathlib.Path | None = None


class Trigger:
    """Hears what the command is about to do below its root, and cuts the power at the moment.

    Events are `write PATH` (a file is opened for it), `sync PATH`, `rename PATH` (its new name), `remove PATH`,
    `publish NODE` (before ML Metadata says COMPLETE) and `complete NODE` (after that, and after a cached one).
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._left = call.moment.time if call.moment else 0
        self._lock = threading.RLock()
        self._file = None if call.events is None else os.open(call.events, os.O_CREAT | os.O_WRONLY)
        self._disk = None if call.mount is None else os.open(call.mount, os.O_RDONLY)

    def listen(self, to_nodes: bool) -> None:
        """From now on; to the nodes of pipelines as well, for which TFX is imported."""
        sync = os.fsync

        def synced(descriptor: int) -> None:
            self.told("sync", os.readlink(f"/proc/self/fd/{descriptor}"))
            sync(descriptor)

        os.fsync = synced  # type: ignore[assignment]
        sys.addaudithook(self._audited)
        if to_nodes:
            self._listen_to_nodes()

    def _listen_to_nodes(self) -> None:
        from tfx.orchestration.portable import launcher

        launch = launcher.Launcher.launch
        publish = launcher.Launcher._publish_successful_execution  # noqa: SLF001 - TFX tells nobody else

        def published(node: launcher.Launcher, *arguments: object, **named: object) -> None:
            self.happened(f"publish {_node(node)}")
            publish(node, *arguments, **named)

        def launched(node: launcher.Launcher) -> object:
            done = launch(node)
            self.happened(f"complete {_node(node)}")
            return done

        launcher.Launcher._publish_successful_execution = published  # noqa: SLF001 - as above
        launcher.Launcher.launch = launched

    def told(self, kind: str, path: object, more: str = "") -> None:
        """Something happens to a path."""
        if isinstance(path, str | bytes | os.PathLike):
            text, root = os.fsdecode(path), str(self._call.root)
            if text.startswith(root + os.sep):
                self.happened(f"{kind} {text[len(root) + 1 :]}{more}")

    def happened(self, event: str) -> None:
        """An event; at the right one the process does not return."""
        with self._lock:
            if self._file is not None:
                os.write(self._file, f"{event}\n".encode())
            if self._call.moment is None or not re.fullmatch(self._call.moment.event, event):
                return
            self._left -= 1
            if self._left == 0 and self._disk is not None:
                fcntl.ioctl(self._disk, _GOING_DOWN, struct.pack("I", JOURNALS[self._call.journal]))
                os.killpg(0, signal.SIGKILL)

    def _audited(self, event: str, arguments: tuple[object, ...]) -> None:
        """What Python itself is about to do: https://docs.python.org/3/library/audit_events.html."""
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR):
            self.told("write", arguments[0])
        elif event == "os.rename":
            self.told("rename", arguments[1], _says(arguments[0], arguments[1]))
        elif event == "os.remove":
            self.told("remove", arguments[0])


def _says(source: object, target: object) -> str:
    """What a new ledger says of the last decision; "" of another file."""
    if not str(target).endswith("ledger.json"):
        return ""
    known = json.loads(pathlib.Path(str(source)).read_text())
    trained = {span for training in known["runs"] for span in training["window"]}
    if any(training["outcome"] == ledger.UNFINISHED for training in known["runs"]):
        return " decided"
    if not {int(number) for number in known["spans"]} <= trained:
        return " accepted"
    return " told" if all(training["told"] for training in known["runs"]) else " ended"


def _node(launcher: object) -> str:
    return launcher._pipeline_node.node_info.id  # type: ignore[attr-defined] # noqa: SLF001 - as above


def _in_process(call: Call) -> None:
    """What a fork of the process that has imported TFX does: the command line with these arguments."""
    os.setsid()
    file = os.open(call.said, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ |= {"PYTHONPATH": str(PROJECT), "COLUMNS": "300"}
    os.chdir(PROJECT)
    sys.argv = ["byol", *call.arguments]
    Trigger(call).listen(to_nodes=call.arguments[0] != "rollback")
    runpy.run_module("pipeline.cli", run_name="__main__", alter_sys=True)


def called(call: Call) -> int:
    """Calls the command; its exit status, -9 where the power went."""
    context = multiprocessing.get_context("forkserver")
    if call.arguments[0] != "rollback":
        context.set_forkserver_preload(_PRELOADED)
    process = context.Process(target=_in_process, args=(call,))
    process.start()
    process.join(_SECONDS)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{call.arguments} did not end within {_SECONDS:g} s; see {call.said}.")
    return process.exitcode


class Disk:
    """A file system in a file, mounted or not.

    Args:
        kind: one of `FILESYSTEMS`.
        folder: where the file and the mount point lie.
    """

    def __init__(self, kind: str, folder: pathlib.Path) -> None:
        self.kind, self.image, self.mount = kind, folder / f"{kind}.img", folder / "disk"
        self.mount.mkdir(exist_ok=True)

    def format(self) -> None:
        """An empty file system of 1 GiB, of which the file holds what is used."""
        self.image.unlink(missing_ok=True)
        with self.image.open("wb") as file:
            file.truncate(1 << 30)
        options = ["-F"] if self.kind == "ext4" else []
        _command(f"mkfs.{self.kind}", "-q", *options, str(self.image))

    def keep(self, name: str) -> pathlib.Path:
        """Another file with what is in it now; it is not mounted."""
        kept = self.image.with_name(f"{self.kind}-{name}.img")
        _command("cp", "--sparse=always", str(self.image), str(kept))
        return kept

    def bring_back(self, kept: pathlib.Path) -> None:
        """As it was then."""
        _command("cp", "--sparse=always", str(kept), str(self.image))

    def on(self) -> None:
        """Mounts it: what the journal has is played back."""
        _command("mount", "-o", "loop", str(self.image), str(self.mount))

    def off(self) -> None:
        """Unmounts it, as soon as the last process of a killed group has ended."""
        for _ in range(100):
            if subprocess.run(["umount", str(self.mount)], check=False, capture_output=True).returncode == 0:
                break
            time.sleep(0.2)
        else:
            _command("umount", str(self.mount))
        looped = ["losetup", "--associated", str(self.image)]
        if subprocess.run(looped, check=True, capture_output=True).stdout:
            raise RuntimeError(
                f"{self.image} is still in use after it was unmounted, so that nothing was cut off."
            )


def own_mounts() -> None:
    """From here on nobody else sees what is mounted: a copy in another process' namespace keeps a disk from going off.

    The file system would stay as it was shut down, and the next mount of its file would be the same one.
    """
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNS):
        raise OSError(ctypes.get_errno(), "unshare")
    _command("mount", "--make-rprivate", "/")


def _command(*words: str) -> None:
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")


class Stage:
    """The two commands over one file system, and what they come to.

    Args:
        kind: of the file system.
        folder: for everything.
    """

    def __init__(self, kind: str, folder: pathlib.Path) -> None:
        self.folder, self.disk = folder, Disk(kind, folder)
        self.root, self.spans = Root(self.disk.mount / "root"), folder / "spans"
        self.told = folder / "told.jsonl"
        self.said = folder / "said.log"
        self.restored = 0  # by the rollback
        self.before: dict[str, pathlib.Path] = {}
        self.expected: dict[str, dict] = {}
        self.events: dict[str, list[str]] = {}

    def arguments(self, command: str) -> tuple[str, ...]:
        """Of `byol`, for one of the commands."""
        if command == "rollback":
            hook = ["--on-rollback", f"tee -a {self.told}"]
            return (command, str(self.restored), "--root", str(self.root.path), *hook)
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        places = ["--data", str(self.spans), "--root", str(self.root.path)]
        only = {
            "run": ["--span", "1"],
            "retrain": ["--warm-start", "full", "--on-pushed", f"tee -a {self.told}"],
        }
        return (command, "--preset", "demo", *places, *only[command], *settings)

    def undisturbed(self, command: str) -> None:
        """Notes what a command starts from, and what it comes to when nothing happens.

        `run` begins in an empty root, `retrain` in one that has trained on span 1, with span 2 delivered, `rollback` in
        one with two versions of what looks like a model.
        """
        self.disk.format()
        if command == "rollback":
            self._push_two()
        elif not self.spans.exists():
            synthetic.write(self.spans / arrivals.TEST_FOLDER, train=10, test=TEST_IMAGES, seed=99)
            for number in (1, 2):
                synthetic.write(
                    self.spans / f"span-{number}", train=TRAIN_IMAGES, test=TEST_IMAGES, seed=number
                )
        if command == "retrain":
            self._deliver(1)
            self.disk.on()
            self._must(self.call(command))
            self.disk.off()
            self._deliver(2)
        self.before[command] = self.disk.keep(command)
        self.told.unlink(missing_ok=True)
        self.disk.on()
        self._must(self.call(command, events=self.folder / "events"))
        self.expected[command] = self.found(command)
        self.disk.off()
        self.events[command] = (self.folder / "events").read_text().splitlines()
        (self.folder / "events").unlink()

    def begin(self, command: str) -> None:
        """Puts back what the command starts from."""
        self.said.unlink(missing_ok=True)
        self.told.unlink(missing_ok=True)
        self.disk.bring_back(self.before[command])

    def cut(self, moment: Moment, journal: str) -> list[str]:
        """Calls the command up to the moment; returns what is wrong: it did not come."""
        self.disk.on()
        status = self.call(moment.command, mount=self.disk.mount, moment=moment, journal=journal)
        self.disk.off()
        return [] if status == -signal.SIGKILL else [f"the moment did not come; exit status {status}"]

    def finish(self, command: str) -> list[str]:
        """Calls the command until it ends; returns what differs from the undisturbed one."""
        self.disk.on()
        try:
            return self._finish(command)
        finally:
            self.disk.off()

    def call(self, command: str, **how: object) -> int:
        """One call of the command; its exit status."""
        return called(Call(self.arguments(command), self.root.path, self.said, **how))  # type: ignore[arg-type]

    def found(self, command: str) -> dict:
        """What a command came to, by what is compared."""
        versions = serving_folder.versions(self.root.serving)
        told = self._told()
        found: dict[str, object] = {
            "versions": [(one.complete, one.fault, one.accuracy, one.record["action"]) for one in versions],
            "withdrawn": versions[-1].record["withdrawn"] if command == "rollback" else [],
            "events": sorted({(one["kind"], *one["spans"]) for one in told}),
            "events with different ids": len({one["id"] for one in told}),
            "left in the outbox": len(list(self.root.ledger.parent.glob("outbox/[0-9d]*"))),
        }
        return found | (self._trained(versions[-1].number) if command != "rollback" else {})

    def _trained(self, served: int) -> dict[str, object]:
        """What is compared of a root with runs in it."""
        graph = store_graph.StoreGraph(self.root.metadata)
        last = graph.runs[-1].executions
        failed = [e.node for e in graph.executions.values() if e.state == store_graph.FAILED]
        summary = json.loads(self.root.latest_summary.read_text())
        known = ledger.Ledger.load(self.root.ledger)
        return {
            "nodes of the last run that are not done": sorted(
                name
                for name, one in last.items()
                if one.state not in (store_graph.COMPLETE, store_graph.CACHED)
            ),
            "nodes of the last run": sorted(last),
            "nodes that failed": failed,
            "accuracies": [
                summary[name]
                for name in ("linear_accuracy", "random_encoder_linear_accuracy", "knn_accuracy", "blessed")
            ],
            "pushed": summary["pushed_version"] == served,
            "spans": {
                number: (span.state, span.reason, span.compared, span.by_hand, span.told)
                for number, span in known.spans.items()
            },
            "trainings": [[getattr(one, name) for name in _OF_A_TRAINING] for one in known.trainings],
            "checkpoints": len(list(self.root.checkpoints.rglob("*.npz"))),
        }

    def _told(self) -> list[dict]:
        """The events that the hook was given; `tee` writes one after the other."""
        text = self.told.read_text() if self.told.exists() else ""
        return [json.loads(line) for line in text.replace("}{", "}\n{").splitlines()]

    def _finish(self, command: str) -> list[str]:
        calls, status = 0, -1
        while status != 0 and calls < _CALLS:
            status, calls = self.call(command), calls + 1
        if status != 0:
            return [f"exit status {status} after {calls} calls"]
        expected, found = self.expected[command], self.found(command)
        return [
            f"{name}: expected {expected[name]}, found {value}"
            for name, value in found.items()
            if value != expected[name]
        ]

    def _push_two(self) -> None:
        self.disk.on()
        for content in "AB":
            model = self.folder / content
            model.mkdir(exist_ok=True)
            (model / serving_folder.SAVED_MODEL_FILE).write_text(content)
            pushed = serving_folder.publish(model, self.root.serving)
            self.restored = self.restored if content == "B" else pushed.version
        self.disk.off()

    def _deliver(self, number: int) -> None:
        (self.spans / f"span-{number}" / arrivals.COMPLETE_MARKER).touch()

    def _must(self, status: int) -> None:
        if status != 0:
            raise RuntimeError(f"Without a cut the exit status was {status}:\n{self.said.read_text()}")


def chosen(moments: str, named: list[str], commands: Sequence[str]) -> list[Moment]:
    """The moments that are asked for: `all`, or so many at the most, spread evenly over the commands.

    Raises:
        ValueError: none of that name, or no number.
    """
    if named:
        found = [
            moment
            for moment in MOMENTS
            if moment.name in named or f"{moment.command}: {moment.name}" in named
        ]
        if len(found) < len(named):
            raise ValueError(f"Expected names as --list has them, received {', '.join(named)}.")
        return found
    known = [moment for moment in MOMENTS if moment.command in commands]
    count = len(known) if moments == "all" else min(int(moments), len(known))
    if count < 1:
        raise ValueError(f"Expected at least 1 moment, or `all`; received {moments}.")
    return [known[int((place + 0.5) * len(known) / count)] for place in range(count)]


def played(
    stage: Stage, moments: list[Moment], journal: str | None, apart: bool
) -> Iterator[tuple[str, str, str, float, str]]:
    """Plays the moments: rows of command, moment, journal, seconds, and the end."""
    for command in dict.fromkeys(moment.command for moment in moments):
        started = time.monotonic()
        stage.undisturbed(command)
        yield command, "never", "", time.monotonic() - started, "the end to compare with"
        own = [moment for moment in moments if moment.command == command]
        for place, moment in enumerate(own):
            if apart or place == 0:
                stage.begin(command)
            started = time.monotonic()
            lost = journal or list(JOURNALS)[place % 2]
            wrong = stage.cut(moment, lost)
            if apart or moment is own[-1]:
                wrong += stage.finish(command)
                end = "; ".join(wrong) or AS_UNDISTURBED
            else:
                end = "; ".join(wrong) or "goes on"
            yield command, moment.name, lost, time.monotonic() - started, end


def main() -> None:
    """Plays and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--filesystem", action="append", choices=FILESYSTEMS, help="only this one")
    parser.add_argument("--command", action="append", choices=COMMANDS, help="only this one")
    parser.add_argument("--moments", default="28", metavar="COUNT", help="how many on each, or `all`")
    parser.add_argument("--moment", action="append", default=[], metavar="NAME", help="only this one")
    parser.add_argument("--journal", choices=JOURNALS, help="what becomes of it, at every moment")
    parser.add_argument("--apart", action="store_true", help="each in a root of its own")
    parser.add_argument("--list", action="store_true", help="print the moments")
    parser.add_argument("--write", type=pathlib.Path, help="file for the table")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{moment.command}: {moment.name}" for moment in MOMENTS))
        return
    try:
        moments = chosen(options.moments, options.moment, options.command or COMMANDS)
    except ValueError as error:
        parser.error(str(error))
    if os.geteuid() != 0:
        parser.error("mounting a loop device needs root")
    own_mounts()
    rows = [
        "| file system | command | the power goes | journal | seconds | end |",
        "|---|---|---|---|---|---|",
    ]
    print("\n".join(rows))
    failed = False
    for kind in options.filesystem or FILESYSTEMS:
        with tempfile.TemporaryDirectory() as folder:
            stage = Stage(kind, pathlib.Path(folder))
            for command, moment, lost, seconds, end in played(stage, moments, options.journal, options.apart):
                rows.append(f"| {kind} | {command} | {moment} | {lost} | {seconds:.0f} | {end} |")
                print(rows[-1], flush=True)
                if ":" in end or "status" in end:
                    failed = True
                    print(stage.said.read_text(), file=sys.stderr, flush=True)
    if options.write:
        options.write.write_text("\n".join(rows) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
