"""`byol schedule`: checks what is asked for, and hands it to one of three schedulers."""

import enum
import pathlib
from typing import Annotated

import typer

from pipeline.console import fail, stop
from pipeline.schedule import crontab, systemd
from pipeline.schedule.cron import Cron
from pipeline.schedule.job import RETRAIN, Job, SchedulerError, When, check_name

FAILED = 1
_NAME = "byol-retrain"


class Scheduler(str, enum.Enum):
    """Who keeps the time."""

    FOREGROUND = "foreground"
    SYSTEMD = "systemd"
    CRONTAB = "crontab"


def register(app: typer.Typer) -> None:
    """Adds the command to the command line; what it does not know, it hands on to `byol retrain`."""
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(schedule)


def schedule(  # noqa: PLR0913, PLR0917 - an option of a command is an argument
    context: typer.Context,
    cron: Annotated[
        str, typer.Option(help="Five fields, `minute hour day month weekday`, such as '0 3 * * *'.")
    ] = "",
    every: Annotated[
        int, typer.Option(min=0, help="Instead of --cron: seconds between two starts, the first at once.")
    ] = 0,
    timezone: Annotated[
        str, typer.Option(help="Of --cron, such as Europe/Berlin; the machine's if left out.")
    ] = "",
    install: Annotated[
        Scheduler, typer.Option(help="Who starts it: this command while it runs, or a service of the system.")
    ] = Scheduler.FOREGROUND,
    uninstall: Annotated[
        Scheduler | None, typer.Option(help="Take what --install set up away again.")
    ] = None,
    name: Annotated[str, typer.Option(help="Of the schedule; one of the same name is replaced.")] = _NAME,
    unit_dir: Annotated[
        pathlib.Path | None,
        typer.Option(help="With systemd: only write the units, into this folder; start nothing."),
    ] = None,
) -> None:
    """Call `byol retrain` again and again, with all further options, such as --data and --root.

    Exit status: 0 installed, removed, or ended by SIGTERM; 1 the scheduler refused; 2 wrong arguments; 130 Ctrl-C.
    """
    try:
        if uninstall is not None:
            _uninstall(uninstall, name, unit_dir, bool(cron or every or context.args))
            return
        when = _when(cron, every, timezone)
        job = Job(name, (*RETRAIN, *context.args), pathlib.Path.cwd(), _root(context).absolute())
        if install is Scheduler.FOREGROUND:
            raise typer.Exit(_stay(job, when))
        if install is Scheduler.SYSTEMD:
            _install_timer(job, when, unit_dir)
        else:
            _install_line(job, when)
    except SchedulerError as error:
        stop(str(error), FAILED)
    except (ValueError, OSError) as error:
        fail(error)


def _when(cron: str, every: int, timezone: str) -> When:
    if bool(cron) == bool(every):
        raise ValueError(
            f"Give either --cron, such as '0 3 * * *', or --every with seconds above 0; received {cron!r} and {every}."
        )
    if timezone:
        if every:
            raise ValueError(f"--every counts seconds and has no --timezone; received {timezone!r}.")
        import zoneinfo

        try:
            zoneinfo.ZoneInfo(timezone)
        except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
            raise ValueError(
                f"There is no time zone {timezone!r}; expected one such as Europe/Berlin."
            ) from error
    return When(Cron.parse(cron) if cron else None, every, timezone)


def _root(context: typer.Context) -> pathlib.Path:
    """The root among the options for `byol retrain`, which checks all of them now instead of at night."""
    from pipeline.retrain import commands as retrain_commands
    from pipeline.retrain.options import Options

    above = context.find_root()
    retrain = above.command.get_command(above, "retrain")  # type: ignore[attr-defined]
    values = retrain.make_context("retrain", list(context.args), parent=above).params
    retrain_commands.check(values["data"], values["root"], values["preset"], Options.of(values))
    return values["root"]


def _stay(job: Job, when: When) -> int:
    from pipeline.schedule.foreground import Foreground, cron_trigger, every_trigger

    trigger = cron_trigger(when.cron, when.timezone) if when.cron else every_trigger(when.every)
    return Foreground(list(job.command), trigger, typer.echo, at_once=bool(when.every)).run()


def _install_timer(job: Job, when: When, unit_dir: pathlib.Path | None) -> None:
    folder = unit_dir or systemd.unit_folder()
    changed = systemd.write(folder, job, when)
    for path in changed:
        typer.echo(f"Wrote {path}.")
    if not changed:
        typer.echo(f"The units of {job.name} in {folder} are as asked for already.")
    if unit_dir is None:
        systemd.tell_systemd(("daemon-reload",), ("enable", "--now", f"{job.name}.timer"))
        typer.echo(
            f"The timer is set: `systemctl --user list-timers {job.name}.timer` shows its next start, `journalctl "
            f"--user -u {job.name}` the log. `loginctl enable-linger` keeps it going while you are logged out."
        )


def _install_line(job: Job, when: When) -> None:
    line = crontab.line(job, when)
    crontab.log_file(job.root).parent.mkdir(parents=True, exist_ok=True)
    changed = crontab.install(line, job.name)
    typer.echo("Added to the crontab:" if changed else "In the crontab already:")
    typer.echo(line)


def _uninstall(scheduler: Scheduler, name: str, unit_dir: pathlib.Path | None, more_was_asked: bool) -> None:
    check_name(name)
    if more_was_asked:
        raise ValueError("--uninstall goes with --name and --unit-dir alone; leave the other options out.")
    if scheduler is Scheduler.FOREGROUND:
        raise ValueError("A schedule in the foreground ends by Ctrl-C; --uninstall takes systemd or crontab.")
    found = crontab.uninstall(name) if scheduler is Scheduler.CRONTAB else _remove_timer(name, unit_dir)
    typer.echo(f"Removed {name}." if found else f"There is no {name} to remove.")


def _remove_timer(name: str, unit_dir: pathlib.Path | None) -> bool:
    folder = unit_dir or systemd.unit_folder()
    if not systemd.written(folder, name):
        return False
    try:
        if unit_dir is None:
            # While the units are there: systemd has to know what it lets go of.
            systemd.tell_systemd(("disable", "--now", f"{name}.timer"))
    finally:
        systemd.remove(folder, name)
    if unit_dir is None:
        systemd.tell_systemd(("daemon-reload",))
    return True
