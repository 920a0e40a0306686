"""`byol schedule`: units that systemd itself checks, a crontab whose lines a shell runs, the foreground by signals."""

import contextlib
import os
import pathlib
import re
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import typer
from typer.testing import CliRunner

from pipeline.retrain import commands as retrain_commands
from pipeline.schedule import commands, crontab, systemd
from pipeline.schedule.cron import Cron
from pipeline.schedule.job import Job, When

PROJECT = pathlib.Path(__file__).resolve().parents[4]
RETRAIN = f"{sys.executable} -m pipeline.cli retrain"
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
# What a shell, cron or systemd would read something into.
ODD = "a b%c $HOME \"d\" 'e' \\f #g é"


def application() -> typer.Typer:
    """The two commands that belong together, without the others."""
    app = typer.Typer()
    commands.register(app)
    retrain_commands.register(app)
    return app


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A folder to work in, with programs that write down how they were called in place of the system's."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "crontab": f"""
            store={tmp_path}/crontab
            [ -e {tmp_path}/broken ] && {{ echo "crontab: you may not" >&2; exit 1; }}
            if [ "$1" = -l ]; then
                [ -e $store ] || {{ echo "no crontab for me" >&2; exit 1; }}
                cat $store
            else
                cat > $store; echo write >> {tmp_path}/calls
            fi""",
        "systemctl": f"""
            echo "$*" >> {tmp_path}/calls
            [ -e {tmp_path}/broken ] && {{ echo "Failed to connect to bus" >&2; exit 1; }}
            exit 0""",
    }
    for name, script in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(work)
    return tmp_path


def called(machine: pathlib.Path) -> list[str]:
    calls = machine / "calls"
    found = calls.read_text().splitlines() if calls.exists() else []
    calls.unlink(missing_ok=True)
    return found


def run(*arguments: str) -> tuple[int, str]:
    outcome = CliRunner().invoke(application(), ["schedule", *arguments])
    return outcome.exit_code, " ".join(outcome.output.split())


NIGHTLY = ("--cron", "0 3 * * *")
REST = ("--data", "spans", "--root", "runs/nightly", "--preset", "cpu", "--window", "4")


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((*REST,), "Give either --cron"),
        ((*NIGHTLY, "--every", "5", *REST), "Give either --cron"),
        (("--cron", "0 3 * *", *REST), "five fields"),
        (("--every", "5", "--timezone", "UTC", *REST), "has no --timezone"),
        ((*NIGHTLY, "--timezone", "Europe/Bonn", *REST), "no time zone 'Europe/Bonn'"),
        ((*NIGHTLY, "--timezone", "../../etc/passwd", *REST), "no time zone"),
        ((*NIGHTLY, "--name", "../x", "--install", "crontab", *REST), "name of a schedule is letters"),
        ((*NIGHTLY, "--install", "crontab", "--data", "x"), "Missing option '--root'"),
        ((*NIGHTLY, "--install", "crontab", *REST, "--windows", "3"), "No such option"),
        ((*NIGHTLY, "--install", "crontab", *REST, "--window", "many"), "Invalid value for '--window'"),
        ((*NIGHTLY, "--install", "crontab", *REST, "more"), "unexpected extra argument"),
        ((*NIGHTLY, "--install", "crontab", "--timezone", "UTC", *REST), "know no time zone but"),
        (("--every", "60", "--install", "crontab", *REST), "cron knows no --every"),
        ((*NIGHTLY, "--install", "crontab", *REST, "--data", "a\nb"), "control characters"),
        ((*NIGHTLY, "--install", "crontab", *REST, "--preset", "best"), "no preset 'best'"),
        ((*NIGHTLY, "--install", "crontab", *REST, "--set", "gate.floor=1"), "no setting"),
        ((*NIGHTLY, "--install", "crontab", *REST, "--on-failed", "http://"), "on_failed is neither"),
        ((*NIGHTLY, *REST, "--on-failed", "https://u:s3cret@host/"), "on_failed holds a password"),
        ((*NIGHTLY, "--install", "systemd", *REST, "--hooks-file", "no.ini"), "No such file"),
        (("--uninstall", "foreground"), "ends by Ctrl-C"),
        (("--uninstall", "crontab", *NIGHTLY), "leave the other options out"),
        (("--uninstall", "systemd", "--name", "a/b"), "name of a schedule is letters"),
    ],
)
def test_what_would_fail_at_night_is_refused_now(arguments, part, machine):
    status, said = run(*arguments)
    assert status == 2
    assert part in said.replace("│ ", "").replace(" │", "")
    assert "s3cret" not in said
    assert called(machine) == []
    assert sorted(path.name for path in machine.iterdir()) == ["bin", "work"]


def test_the_crontab_keeps_every_other_line(machine):
    store = machine / "crontab"
    store.write_bytes(b"# mine\nMAILTO=me\n5 4 * * 0 other \\% \xff\r\n\n# last, without an end")
    status, said = run(*NIGHTLY, "--install", "crontab", *REST)
    line = (
        f"0 3 * * * cd -- {machine}/work && {RETRAIN} --data spans --root runs/nightly --preset cpu --window "
        f"4 >> {machine}/work/runs/nightly/logs/schedule.log 2>&1 # byol schedule byol-retrain"
    )
    assert (status, said) == (0, f"Added to the crontab: {line}")
    others = b"# mine\nMAILTO=me\n5 4 * * 0 other \\% \xff\r\n\n# last, without an end\n"
    assert store.read_bytes() == others + line.encode() + b"\n"
    assert called(machine) == ["write"]

    status, said = run(*NIGHTLY, "--install", "crontab", *REST)
    assert (status, said) == (0, f"In the crontab already: {line}")
    assert called(machine) == []

    run(*NIGHTLY, "--install", "crontab", "--name", "second", *REST)
    run("--cron", "0 4 * * 7", "--install", "crontab", *REST)
    second = line.replace("byol-retrain", "second")
    assert store.read_bytes() == others + f"0 4 * * 0{line.removeprefix('0 3 * * *')}\n{second}\n".encode()

    assert run("--uninstall", "crontab") == (0, "Removed byol-retrain.")
    assert run("--uninstall", "crontab", "--name", "second") == (0, "Removed second.")
    assert store.read_bytes() == others
    called(machine)
    assert run("--uninstall", "crontab") == (0, "There is no byol-retrain to remove.")
    assert called(machine) == []


def test_a_user_without_a_crontab_gets_one(machine):
    assert run(*NIGHTLY, "--install", "crontab", *REST)[0] == 0
    assert (machine / "crontab").read_text().count("\n") == 1
    assert (machine / "work" / "runs" / "nightly" / "logs").is_dir()


def test_a_crontab_that_cannot_be_read_is_not_overwritten(machine):
    (machine / "crontab").write_text("precious\n")
    (machine / "broken").touch()
    status, said = run(*NIGHTLY, "--install", "crontab", *REST)
    assert status == 1
    assert "`crontab -l` refused (crontab: you may not); the crontab was left alone" in said
    assert (machine / "crontab").read_text() == "precious\n"


def test_a_machine_without_cron_is_told_so(machine, monkeypatch):
    monkeypatch.setenv("PATH", str(machine / "work"))
    for arguments in ((*NIGHTLY, "--install", "crontab", *REST), ("--uninstall", "crontab")):
        status, said = run(*arguments)
        assert status == 1
        assert "no crontab program on the PATH. Install cron, or take --install systemd" in said


def test_cron_hands_odd_paths_on_unchanged(tmp_path):
    """As cron does it: what stands before a bare % goes to the shell, with \\% as %."""
    folder, program = tmp_path / ODD, tmp_path / ODD / "prog ram"
    (folder / "logs").mkdir(parents=True)
    program.write_text('#!/bin/sh\npwd\nprintf "[%s]\\n" "$@"\necho told >&2\n')
    program.chmod(0o755)
    job = Job("odd", (str(program), "--root", ODD, "100%", "*"), folder, folder)
    line = crontab.line(job, When(Cron.parse("*/30 3 * * *")))
    command = re.split(r"(?<!\\)%", line.removeprefix("0,30 3 * * * "))
    assert len(command) == 1
    subprocess.run(["/bin/sh", "-c", command[0].replace(r"\%", "%")], check=True, cwd="/")
    told = (folder / "logs" / "schedule.log").read_text()
    assert told == f"{folder}\n[--root]\n[{ODD}]\n[100%]\n[*]\ntold\n"


def test_the_timer_is_installed_once_replaced_and_removed(machine):
    folder = machine / "config" / "systemd" / "user"
    enabled = ["--user daemon-reload", "--user enable --now byol-retrain.timer"]
    status, said = run(*NIGHTLY, "--timezone", "Europe/Berlin", "--install", "systemd", *REST)
    assert status == 0
    assert f"Wrote {folder}/byol-retrain.service. Wrote {folder}/byol-retrain.timer. The timer is set" in said
    assert called(machine) == enabled
    timer = (folder / "byol-retrain.timer").read_text()
    assert "\nOnCalendar=*-*-* 3:0:00 Europe/Berlin\nPersistent=true\n" in timer
    service = (folder / "byol-retrain.service").read_text()
    assert f"\nWorkingDirectory={machine}/work\n" in service
    assert "\nSuccessExitStatus=3 130\n" in service
    assert "\nKillSignal=SIGINT\n" in service

    status, said = run(*NIGHTLY, "--timezone", "Europe/Berlin", "--install", "systemd", *REST)
    assert (status, said[:40]) == (0, "The units of byol-retrain in " + str(folder)[:11])
    assert called(machine) == enabled

    status, said = run("--every", "600", "--install", "systemd", *REST)
    assert said.startswith(f"Wrote {folder}/byol-retrain.timer. The timer is set")
    timer = (folder / "byol-retrain.timer").read_text()
    assert "OnActiveSec=0\nOnUnitActiveSec=600\n" in timer
    assert "OnCalendar" not in timer

    called(machine)
    assert run("--uninstall", "systemd") == (0, "Removed byol-retrain.")
    assert list(folder.iterdir()) == []
    assert called(machine) == ["--user disable --now byol-retrain.timer", "--user daemon-reload"]
    assert run("--uninstall", "systemd") == (0, "There is no byol-retrain to remove.")
    assert called(machine) == []


def test_without_a_running_systemd_the_units_stay_and_the_rest_is_said(machine, monkeypatch):
    folder = machine / "config" / "systemd" / "user"
    (machine / "broken").touch()
    status, said = run(*NIGHTLY, "--install", "systemd", *REST)
    rest = "systemctl --user daemon-reload && systemctl --user enable --now byol-retrain.timer"
    assert status == 1
    assert f"systemctl refused (Failed to connect to bus). Run in a login session: {rest}" in said
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setenv("PATH", str(machine / "work"))
    status, said = run(*NIGHTLY, "--install", "systemd", *REST)
    assert status == 1
    assert f"systemctl is not on the PATH. Where systemd runs, run: {rest}" in said
    assert run("--uninstall", "systemd")[0] == 1
    assert list(folder.iterdir()) == []


def test_a_folder_of_units_is_written_to_and_nothing_started(machine):
    folder = machine / "units"
    assert run(*NIGHTLY, "--install", "systemd", "--unit-dir", str(folder), *REST)[0] == 0
    assert sorted(path.name for path in folder.iterdir()) == ["byol-retrain.service", "byol-retrain.timer"]
    (folder / "other.timer").write_text("[Timer]\n")
    for arguments in ((*NIGHTLY, "--install", "systemd", *REST), ("--uninstall", "systemd")):
        status, said = run(*arguments, "--name", "other", "--unit-dir", str(folder))
        assert status == 1
        assert "other.timer was not written by `byol schedule` and is left alone" in said
    assert (folder / "other.timer").read_text() == "[Timer]\n"
    assert run("--uninstall", "systemd", "--unit-dir", str(folder))[0] == 0
    assert [path.name for path in folder.iterdir()] == ["other.timer"]
    assert called(machine) == []


def test_a_secret_in_a_file_of_hooks_stands_in_nothing_that_is_written(machine):
    file = machine / "work" / "hooks.ini"
    file.write_text("[hooks]\non_failed = https://u:s3cret@host/\n")
    file.chmod(0o600)
    for scheduler in ("systemd", "crontab"):
        status, said = run(*NIGHTLY, "--install", scheduler, *REST, "--hooks-file", "hooks.ini")
        assert status == 0, said
        assert "s3cret" not in said
    written = [path for path in machine.rglob("*") if path.is_file() and path != file]
    assert [path for path in written if b"s3cret" in path.read_bytes()] == []
    units = [path for path in written if path.suffix in {".service", ".timer"}]
    assert len(units) == 2
    assert {path.stat().st_mode & 0o777 for path in units} == {0o600}
    assert "hooks.ini" in "".join(path.read_text() for path in units)


def unquoted(line: str) -> list[str]:
    """By systemd.service(5): quotes and backslashes as here, then %% and $$ for one each."""
    words = shlex.split(line)
    assert not any(re.search(r"(?<!%)%(%%)*(?!%)", word) for word in words)
    return [word.replace("%%", "%").replace("$$", "$") for word in words]


def test_systemd_hands_odd_paths_on_unchanged(tmp_path):
    arguments = ("--root", ODD, "100%", "*", "${X}", "%h")
    job = Job("odd", (str(tmp_path / "py 3 %h"), *arguments), tmp_path / "a b%c", tmp_path)
    text = systemd.service(job)
    (command,) = re.findall("^ExecStart=(.*)$", text, re.MULTILINE)
    assert unquoted(command) == list(job.command)
    assert f"\nWorkingDirectory={tmp_path}/a b%%c\n" in text
    for program in ("/$HOME/python", '/a "b"/python', "/it's/python", "/a\\b/python"):
        with pytest.raises(ValueError, match="its path holds one of"):
            systemd.service(Job("odd", (program,), tmp_path, tmp_path))


@needs_systemd
@pytest.mark.parametrize(
    "when", [When(Cron.parse("*/15 3 13 * 5"), timezone="Europe/Berlin"), When(None, 600)]
)
def test_systemd_accepts_the_units(when, tmp_path):
    """With spaces, percent signs and quotes in every path; a misspelt unit shows that it does look."""
    folder = tmp_path / "a b%c"
    (folder / '"d"').mkdir(parents=True)
    program = folder / "python"
    program.symlink_to("/bin/true")
    job = Job("byol-retrain", (str(program), "--root", ODD), folder / '"d"', folder)
    systemd.write(tmp_path, job, when)
    verify = ["systemd-analyze", "verify", tmp_path / "byol-retrain.service", tmp_path / "byol-retrain.timer"]
    told = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert (told.returncode, [line for line in told.stderr.splitlines() if "byol" in line]) == (0, [])
    timer = tmp_path / "byol-retrain.timer"
    timer.write_text(timer.read_text().replace("On", "Oh"))
    told = subprocess.run(verify, capture_output=True, text=True, check=False)
    assert "byol-retrain.timer" in told.stderr


def test_ctrl_c_at_the_terminal_ends_the_foreground_in_one_line(tmp_path):
    """The whole process group gets it, as at a terminal; the run gets it once, from the scheduler."""
    fake = tmp_path / "fake.py"
    fake.write_text(
        "import os, signal, sys, time\n"
        # Not print: the signal may come while the line below is in it.
        "def stop(*_):\n    os.write(1, b'kept\\n')\n    time.sleep(0.2)\n    sys.exit(130)\n"
        "signal.signal(signal.SIGINT, stop)\nprint('at work', *sys.argv[1:], flush=True)\ntime.sleep(60)\n"
    )
    main = tmp_path / "main.py"
    main.write_text(
        f"import sys; sys.path.insert(0, {str(PROJECT)!r})\n"
        "from pipeline.schedule import commands\n"
        "from tests.unit.pipeline.schedule.test_schedule import application\n"
        f"commands.RETRAIN = (sys.executable, {str(fake)!r})\napplication()()\n"
    )
    command = [sys.executable, str(main), "schedule", "--every", "3600", *REST]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        cwd=tmp_path,
    ) as process:
        assert process.stdout is not None
        with contextlib.closing(process.stdout):
            first = process.stdout.readline()
            assert first.startswith("Next start: "), first + process.stdout.read()
            assert process.stdout.readline() == f"at work {' '.join(REST)}\n"
            os.killpg(process.pid, signal.SIGINT)
            said = process.stdout.read().splitlines()
            assert process.wait(20) == 130
    assert [line for line in said if "Exit status 130" not in line] == ["kept", "Ended."]
