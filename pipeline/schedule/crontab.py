"""One line in the user's crontab; every other line stays as it is."""

import os
import pathlib
import shlex
import shutil
import subprocess

from pipeline.schedule.job import Job, SchedulerError, When

LOG_FILE = "schedule.log"
_SECONDS_TO_ANSWER = 60


def log_file(root: pathlib.Path) -> pathlib.Path:
    """Where what the runs print goes."""
    return root / "logs" / LOG_FILE


def line(job: Job, when: When) -> str:
    """The line for the crontab, without its end.

    Raises:
        ValueError: cron cannot do what is asked for.
    """
    if when.cron is None:
        raise ValueError("cron knows no --every; give --cron, or take --install systemd or foreground.")
    if when.timezone:
        raise ValueError(
            f"Many crons know no time zone but the machine's; received --timezone {when.timezone}. Leave it out, or "
            "take --install systemd or foreground."
        )
    words = [shlex.join(["cd", "--", str(job.folder)]), "&&", shlex.join(job.command)]
    words += [">>", shlex.quote(str(log_file(job.root))), "2>&1"]
    # To cron a % is the end of the command, also within quotes.
    command = " ".join(words).replace("%", r"\%")
    return f"{when.cron.five_fields()} {command} {_mark(job.name)}"


def install(new: str, name: str) -> bool:
    """Adds the line, or puts it in the place of the one of the same name.

    Returns:
        Whether the crontab was changed.

    Raises:
        SchedulerError: there is no crontab program, or it refused.
    """
    before = _read()
    lines = before.split("\n")
    places = _places(lines, name)
    if places:
        lines[places[0]] = new
    else:
        # What follows the last end of line is empty.
        lines[-1:] = [*filter(None, lines[-1:]), new, ""]
    after = _without(lines, places[1:])
    return _write_if_changed(before, after)


def uninstall(name: str) -> bool:
    """Takes the line of that name out.

    Returns:
        Whether there was one.

    Raises:
        SchedulerError: there is no crontab program, or it refused.
    """
    before = _read()
    lines = before.split("\n")
    return _write_if_changed(before, _without(lines, _places(lines, name)))


def _mark(name: str) -> str:
    # The shell that cron calls takes it for a comment.
    return f"# byol schedule {name}"


def _places(lines: list[str], name: str) -> list[int]:
    return [place for place, text in enumerate(lines) if text.endswith(f" {_mark(name)}")]


def _without(lines: list[str], places: list[int]) -> str:
    return "\n".join(text for place, text in enumerate(lines) if place not in places)


def _write_if_changed(before: str, after: str) -> bool:
    if before == after:
        return False
    _crontab("-", stdin=after)
    return True


def _read() -> str:
    """The user's crontab; empty if there is none."""
    try:
        return _crontab("-l")
    except SchedulerError as error:
        # Any other failure must not be taken for an empty one: it would be overwritten.
        if "no crontab for" in str(error).lower():
            return ""
        raise


def _crontab(argument: str, stdin: str = "") -> str:
    """Bytes that are no text go through unchanged."""
    program = shutil.which("crontab")
    if program is None:
        raise SchedulerError(
            "There is no crontab program on the PATH. Install cron, or take --install systemd or foreground."
        )
    try:
        done = subprocess.run(
            [program, argument],
            input=os.fsencode(stdin),
            capture_output=True,
            check=False,
            timeout=_SECONDS_TO_ANSWER,
            # The message is looked at.
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"`crontab {argument}` did not answer; the crontab was left alone.") from error
    if done.returncode != 0:
        reason = os.fsdecode(done.stderr).strip() or f"status {done.returncode}"
        raise SchedulerError(
            f"`crontab {argument}` refused ({reason}); the crontab was left alone. Run it by hand to see why."
        )
    return os.fsdecode(done.stdout)
