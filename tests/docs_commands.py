"""Runs the commands of the pages as a reader does: in their order, in a fresh clone. `make docs-check` calls it.

    .venv/bin/python -m tests.docs_commands [--keep DIR] [PAGE ...]

The clone holds the last commit. A command that takes an hour elsewhere is made small, and the official archive is stood
in for by drawn images, as `RULES` says; what is left out is named with its reason. A server is started, asked for an
answer, used by the commands after it and ended by Ctrl-C at the end of its page.
"""

import argparse
import dataclasses
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from PIL import Image

from components.data import cifar10, synthetic

PROJECT = pathlib.Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "docs/tutorial.md",
    "docs/tutorial-cifar10.md",
    "docs/guides/use-the-encoder.md",
    "docs/guides/own-images.md",
    "docs/guides/own-encoder.md",
    "docs/guides/own-gate.md",
    "docs/guides/retraining.md",
    "docs/guides/history.md",
    "docs/guides/schedule.md",
    "docs/index.md",
)
# A line with one of these is the form of a command, not a command: DIR, [RUN], a|b, "...".
_FORM = re.compile(r"\.\.\.|\[[A-Z=-]|\b[A-Z]{2,}\b(?!=)|\w\|\w|\b[NK]\b")
_BLOCK = re.compile(r"```(sh|python)\n(.*?)```", re.DOTALL)
# What `make docs-check` sets for itself and a reader's shell has not.
_OURS = re.compile(r"VIRTUAL_ENV|PYTHONPATH|VENV|MAKE|MFLAGS")
# Not run a second time when another page, or the same, repeats them word for word.
_LONG = re.compile(r"^(make|byol run) ")
_SECONDS = 1800
_ANSWER_SECONDS = 120
TRAIN_IMAGES, TEST_IMAGES = 1200, 300
# Makes a run on real data small: it is not about the accuracy that the page tells.
_SMALL = " ".join(
    f'--set "{assignment}"'
    for assignment in (
        "pretraining.epochs=1",
        "pretraining.optimizer.warmup_steps=1",
        "pretraining.monitor_images=0",  # one epoch on few images may look like a collapse
        "probe.epochs=2",
        "gate.minimum_accuracy=0",
        f"gate.class_floors={(0.0,) * 10}",
        "gate.minimum_gain=-1",
        "gate.maximum_regression=1",
        "gate.minimum_corrupted_accuracy=0",
        "gate.minimum_worst_corrupted_accuracy=0",
        f"gate.robustness_images={TEST_IMAGES}",
        f"gate.minimum_test_images={TEST_IMAGES}",
    )
)


@dataclasses.dataclass(frozen=True)
class Rule:
    """What is different about a command that matches.

    Attributes:
        pattern: a regular expression.
        left_out: why it is not run; empty for one that is.
        appended: what makes it small.
        instead: what stands in for it.
        status: the exit status that the page promises.
        answers_at: the address of a server; it goes on while the page's other commands run.
    """

    pattern: str
    left_out: str = ""
    appended: str = ""
    instead: str = ""
    status: int = 0
    answers_at: str = ""


RULES = (
    Rule(r"^make test$", left_out="it is the suite itself"),
    Rule(r"--preset gpu", left_out="needs a GPU"),
    Rule(r"^byol data cifar10 data$", instead="test -f data/test_batch.bin"),
    Rule(r"--preset cpu .*--root", appended=_SMALL),
    Rule(r"^rm -r runs/demo", left_out="the pages after it go on with what it takes away"),
    Rule(r"^byol schedule .*crontab", left_out="changes the crontab of whoever reads"),
    Rule(r"^byol schedule .*systemd", left_out="needs systemd with a session of the reader's"),
    Rule(r"^byol schedule ", left_out="runs until it is ended"),
    Rule(r"^byol retrain .*--preset cpu", appended=_SMALL),
    Rule(r"^byol lineage .* \d+ --verify$", instead="byol lineage --root runs/nightly --verify"),
    Rule(r"minimum_accuracy=0\.99", status=3),
    Rule(r"^byol serve ", answers_at="http://localhost:8501/v1/models/byol"),
    Rule(r"^byol tensorboard ", answers_at="http://localhost:6006/"),
)


@dataclasses.dataclass(frozen=True)
class Command:
    """One command of a page, as it is written, with what is different about it.

    Attributes:
        page: the page, relative to the project.
        language: "sh" or "python".
        text: the command.
        rule: of `RULES`; one that changes nothing if none matches.
    """

    page: str
    language: str
    text: str
    rule: Rule

    @property
    def shown(self) -> str:
        """In one line."""
        return " ".join(self.text.split())[:110]


def commands(page: str, text: str) -> list[Command]:
    """The commands in the shell and Python blocks of a page, in order; forms of commands are left out."""
    found = []
    for language, block in _BLOCK.findall(text):
        for command in [block] if language == "python" else _shell_commands(block):
            if language == "python" or not _FORM.search(command):
                rule = next((r for r in RULES if re.search(r.pattern, command)), Rule(""))
                found.append(Command(page, language, command, rule))
    return found


def _shell_commands(block: str) -> Iterator[str]:
    """A command a time, which may go over several lines: the shell itself says where one ends."""
    pending = ""
    for line in block.splitlines():
        pending += line + "\n"
        is_whole = (
            subprocess.run(["bash", "-n", "-c", pending], capture_output=True, check=False).returncode == 0
        )
        if is_whole and not line.endswith("\\"):
            command = re.sub(r"\s{2,}#.*", "", pending).strip()
            if command and not command.startswith("#"):
                yield command
            pending = ""
    if pending:
        raise ValueError(f"The shell does not understand: {pending}")


class Reader:
    """Someone who types what the pages say.

    Args:
        clone: the fresh clone, where everything is typed.
    """

    def __init__(self, clone: pathlib.Path) -> None:
        self._clone = clone
        self._typed: set[str] = set()
        self._servers: list[tuple[Command, subprocess.Popen[str]]] = []
        # By its path: a system may have a `python3` alone, and this one looks names up on its own PATH.
        self._python = str(clone / ".venv" / "bin" / "python")
        self._environment = {
            **{name: value for name, value in os.environ.items() if not _OURS.match(name)},
            # What `. .venv/bin/activate` does for the reader, whose shell stays open.
            "PATH": f"{clone / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }

    def read(self, page: str) -> list[str]:
        """Runs a page's commands and returns what went wrong."""
        wrong = []
        for command in commands(page, (self._clone / page).read_text(encoding="utf-8")):
            start = time.monotonic()
            problem = self._type(command)
            state = "FAILED" if problem else "left out" if command.rule.left_out else "ok"
            reason = f" ({command.rule.left_out})" if command.rule.left_out else ""
            _tell(f"{state:8} {time.monotonic() - start:6.1f} s  {page}: {command.shown}{reason}")
            wrong += [f"{page}: {command.shown}: {problem}"] if problem else []
        return wrong + [f"{page}: {problem}" for problem in self._end_servers()]

    def _type(self, command: Command) -> str:
        rule = command.rule
        if rule.left_out or (_LONG.match(command.text) and command.text in self._typed):
            return ""
        self._typed.add(command.text)
        if rule.answers_at:
            return self._start(command)
        text = rule.instead or f"{command.text} {rule.appended}"
        arguments = [
            *([self._python, "-c"] if command.language == "python" else ["bash", "-o", "pipefail", "-c"]),
            text,
        ]
        done = subprocess.run(
            arguments,
            cwd=self._clone,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        if done.returncode != rule.status or "Traceback" in said:
            return f"exit status {done.returncode}, expected {rule.status}:\n{said[-3000:]}"
        return ""

    def _start(self, command: Command) -> str:
        process = subprocess.Popen(
            shlex.split(command.text),
            cwd=self._clone,
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._servers.append((command, process))
        deadline = time.monotonic() + _ANSWER_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            try:
                with urllib.request.urlopen(command.rule.answers_at, timeout=10):  # noqa: S310 - a constant
                    return ""
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        return f"no answer at {command.rule.answers_at} within {_ANSWER_SECONDS} s"

    def _end_servers(self) -> list[str]:
        """Ctrl-C on each; it has to end at once and without a stack."""
        wrong = []
        for command, process in self._servers:
            process.send_signal(signal.SIGINT)
            try:
                said, _ = process.communicate(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                said, _ = process.communicate()
                wrong.append(f"{command.shown} did not end by Ctrl-C")
            if "Traceback" in said:
                wrong.append(f"{command.shown} said:\n{said[-3000:]}")
        self._servers = []
        return wrong


def fresh_clone(folder: pathlib.Path) -> pathlib.Path:
    """The last commit in a new folder, with what the pages take for granted: records, photographs."""
    clone = folder / "byol-tfx"
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(clone)], check=True)
    synthetic.write(clone / "data", train=TRAIN_IMAGES, test=TEST_IMAGES)
    photographs(clone / "data", clone / "photos")
    for name in ("cat.png", "dog.jpg", "photos/cat.png"):
        Image.open(next(clone.glob("photos/test/*/*.png"))).save(clone / name)
    return clone


def photographs(records: pathlib.Path, folder: pathlib.Path) -> None:
    """Records as image files of many sizes, below `folder`: SPLIT/CLASS/NUMBER.png."""
    for split, paths in (("train", records.glob("data_batch_*.bin")), ("test", [records / "test_batch.bin"])):
        for path in paths:
            for number, (image, label) in enumerate(zip(*cifar10.read_records(path), strict=True)):
                file = folder / split / f"class-{label}" / f"{path.stem}-{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).resize((40 + number % 9, 48)).save(file)


def main() -> None:
    """Reads the pages; exit status 1 if a command did not do what its page says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", default=PAGES, metavar="PAGE", help="all by default")
    parser.add_argument("--keep", type=pathlib.Path, help="folder for the clone, which stays")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(given.keep or temporary).absolute()
        reader = Reader(fresh_clone(folder))
        wrong = [problem for page in given.pages for problem in reader.read(page)]
    _tell(f"{len(given.pages)} pages in {time.monotonic() - start:.0f} s; {len(wrong)} commands failed.")
    if wrong:
        sys.exit("\n\n".join(wrong))


def _tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
