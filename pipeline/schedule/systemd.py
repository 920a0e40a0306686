"""A systemd timer of the user's, and the service that it starts."""

import os
import pathlib
import shutil
import subprocess

from components.staging import write_atomically
from pipeline.schedule.job import Job, SchedulerError, When

_MARK = "# Written by `byol schedule`"
_SECONDS_TO_ANSWER = 60
# In the path of a program; $ would be a variable in the name that the program is given.
_REFUSED = "$\"'\\"


def unit_folder() -> pathlib.Path:
    """Where systemd looks for the units of this user."""
    home = os.environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return pathlib.Path(home) / "systemd" / "user"


def service(job: Job) -> str:
    """The text of the service.

    Raises:
        ValueError: the program's path holds a character that systemd does not take there.
    """
    program, *arguments = job.command
    if any(character in program for character in _REFUSED):
        raise ValueError(
            f"systemd cannot start {program}: its path holds one of {' '.join(_REFUSED)}. Move the environment "
            "elsewhere."
        )
    command = " ".join([_quoted(program), *(_quoted(word).replace("$", "$$") for word in arguments)])
    return f"""\
{_header(job.name)}
[Unit]
Description=BYOL retraining in {_escaped(str(job.root))}

[Service]
Type=oneshot
WorkingDirectory={_escaped(str(job.folder))}
ExecStart={command}
# 3: the gate refused what was trained. 130: it was stopped, and goes on at the next start. Neither is a fault.
SuccessExitStatus=3 130
# As Ctrl-C does: training keeps what it has.
KillSignal=SIGINT
TimeoutStopSec=120
"""


def timer(job: Job, when: When) -> str:
    """The text of the timer; a start that was missed while the machine was off is made up for."""
    if when.cron is None:
        times = f"OnActiveSec=0\nOnUnitActiveSec={when.every}"
    else:
        events = (f"OnCalendar={event}" for event in when.cron.systemd(when.timezone))
        times = "\n".join([*events, "Persistent=true"])
    return f"""\
{_header(job.name)}
[Unit]
Description=Starts the BYOL retraining in {_escaped(str(job.root))}

[Timer]
{times}

[Install]
WantedBy=timers.target
"""


def write(folder: pathlib.Path, job: Job, when: When) -> list[pathlib.Path]:
    """Writes both units, where they are not the same already.

    Returns:
        The files that changed.

    Raises:
        SchedulerError: a file of that name was written by somebody else; it is left alone.
        OSError: a file cannot be written.
    """
    texts = dict(zip(_files(folder, job.name), (service(job), timer(job, when)), strict=True))
    changed = [path for path in texts if _own(path) != texts[path]]
    for path in changed:
        write_atomically(path, texts[path], mode=0o600)  # hooks may hold secrets
    return changed


def written(folder: pathlib.Path, name: str) -> list[pathlib.Path]:
    """Those of the two units that are there.

    Raises:
        SchedulerError: as `write`.
    """
    return [path for path in _files(folder, name) if _own(path) is not None]


def remove(folder: pathlib.Path, name: str) -> None:
    """Removes both units.

    Raises:
        SchedulerError: as `write`.
        OSError: a file cannot be removed.
    """
    for path in written(folder, name):
        path.unlink()


def tell_systemd(*steps: tuple[str, ...]) -> None:
    """Calls `systemctl --user` with each step.

    Raises:
        SchedulerError: there is no systemctl, or it failed; the message says what is left to do.
    """
    left = " && ".join(" ".join(["systemctl", "--user", *step]) for step in steps)
    if shutil.which("systemctl") is None:
        raise SchedulerError(f"systemctl is not on the PATH. Where systemd runs, run: {left}")
    for step in steps:
        try:
            done = subprocess.run(
                ["systemctl", "--user", *step],  # noqa: S607 - the one on the PATH, as looked for
                capture_output=True,
                text=True,
                check=False,
                timeout=_SECONDS_TO_ANSWER,
            )
        except subprocess.TimeoutExpired as error:
            raise SchedulerError(f"systemctl did not answer. Run in a login session: {left}") from error
        if done.returncode != 0:
            reason = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            raise SchedulerError(f"systemctl refused ({reason}). Run in a login session: {left}")


def _files(folder: pathlib.Path, name: str) -> tuple[pathlib.Path, pathlib.Path]:
    return folder / f"{name}.service", folder / f"{name}.timer"


def _own(path: pathlib.Path) -> str | None:
    """What the file holds; None if there is none."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return None
    if not text.startswith(_MARK):
        raise SchedulerError(
            f"{path} was not written by `byol schedule` and is left alone. Choose another --name, or move it away."
        )
    return text


def _header(name: str) -> str:
    return f"{_MARK}; `byol schedule --uninstall systemd --name {name}` removes it."


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _quoted(word: str) -> str:
    word = _escaped(word).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{word}"'
