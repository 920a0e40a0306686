"""The environment script and the locks: what is missing is named, what is half made is made again."""

import hashlib
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.version import Version

REPOSITORY = Path(__file__).parents[2]
LOCKS = sorted((REPOSITORY / "requirements").glob("*.lock"))
LANE_PYTHONS = [("floor", "3.10"), ("current", "3.11"), ("current", "3.12"), ("current", "3.13")]


def locked_versions(lane: str, python: str) -> dict[str, Version]:
    """Versions that the lane's lock installs on that Python, by package name."""
    lock = (REPOSITORY / "requirements" / f"{lane}.lock").read_text(encoding="utf-8")
    versions = {}
    for line in re.findall(r"^([a-z0-9][^\\\n]*?)\s*\\$", lock, flags=re.MULTILINE):
        requirement = Requirement(line)
        environment = {"python_version": python, "python_full_version": f"{python}.0"}
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (pin,) = requirement.specifier
            versions[requirement.name] = Version(pin.version)
    return versions


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with what the environment script reads, and no environment."""
    folder = tmp_path / "checkout"
    shutil.copytree(REPOSITORY / "requirements", folder / "requirements")
    shutil.copy(REPOSITORY / "setup.py", folder)
    return folder


@pytest.fixture
def path_without_gpp(tmp_path: Path) -> str:
    """A PATH on which everything of this system but g++ is found."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for directory in [*os.environ["PATH"].split(os.pathsep), "/usr/bin", "/bin"]:
        for program in Path(directory).glob("*"):
            link = folder / program.name
            if program.name != "g++" and not link.is_symlink():
                link.symlink_to(program)
    return str(folder)


def make_env(checkout: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "PYENV_ROOT") if name in os.environ}
    return subprocess.run(
        [shutil.which("bash") or "bash", "requirements/make_env.sh"],
        cwd=checkout,
        env={**kept, **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def digest(checkout: Path, name: str) -> str:
    """What the script stamps for one file: `sha256sum FILE | sha256sum`."""
    inner = hashlib.sha256((checkout / name).read_bytes()).hexdigest()
    return hashlib.sha256(f"{inner}  {name}\n".encode()).hexdigest()


def pretend_environment(checkout: Path) -> None:
    """An environment that carries the stamps of a finished installation of the floor lane."""
    environment = checkout / ".venv"
    (environment / "bin").mkdir(parents=True)
    (environment / "bin" / "python").symlink_to(sys.executable)
    lines = ["floor", digest(checkout, "requirements/floor.lock"), str(checkout), "for a test"]
    (environment / ".byol-lane").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (environment / ".byol-project").write_text(digest(checkout, "setup.py") + "\n", encoding="utf-8")


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_pin_has_hashes_and_no_address_is_named(lock: Path) -> None:
    text = lock.read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z0-9].*$", text, flags=re.MULTILINE)
    assert pins
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
    hashed = re.findall(r"^[a-z0-9][^\n]*\\\n +--hash=sha256:[0-9a-f]{64}", text, flags=re.MULTILINE)
    assert len(hashed) == len(pins)
    assert "://" not in text
    assert "--index" not in text
    assert "--find-links" not in text


@pytest.mark.parametrize(("lane", "python"), LANE_PYTHONS)
def test_setup_admits_what_the_lock_installs(lane: str, python: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments: dict[str, list[str]] = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    runpy.run_path(str(REPOSITORY / "setup.py"))
    locked = locked_versions(lane, python)
    wanted = [Requirement(line) for line in arguments["install_requires"]]
    wanted = [one for one in wanted if one.marker is None or one.marker.evaluate({"python_version": python})]
    assert {"tfx", "tensorflow", "apache-beam", "keras"} <= {one.name for one in wanted}
    assert [one.name for one in wanted if not one.specifier.contains(locked[one.name])] == []


def test_both_lanes_lint_with_the_same_tools() -> None:
    floor, current = locked_versions("floor", "3.10"), locked_versions("current", "3.13")
    for tool in ("ruff", "mypy", "pytest", "pytest-timeout"):
        assert floor[tool] == current[tool]


def test_a_missing_compiler_is_named_before_anything_is_fetched(
    checkout: Path, path_without_gpp: str
) -> None:
    outcome = make_env(checkout, PATH=path_without_gpp)
    assert outcome.returncode == 1
    assert outcome.stderr.count("\n") == 1
    assert re.match(r"make env: missing: g\+\+.* Install with: apt-get install g\+\+", outcome.stderr)
    assert not (checkout / ".tools").exists()
    assert not (checkout / ".venv").exists()


def test_an_unknown_lane_is_refused(checkout: Path) -> None:
    outcome = make_env(checkout, LANE="newest")
    assert outcome.returncode == 1
    assert outcome.stderr == "make env: LANE=newest is not a lane: expected floor or current\n"


def test_a_finished_environment_is_kept(checkout: Path, path_without_gpp: str) -> None:
    pretend_environment(checkout)
    outcome = make_env(checkout, PATH=path_without_gpp)
    assert outcome.returncode == 0
    assert outcome.stdout == "Lane: floor (for a test); .venv is up to date\n"


@pytest.mark.parametrize("fault", ["interrupted", "lock changed", "folder moved", "python gone"])
def test_any_other_environment_is_made_again(fault: str, checkout: Path, path_without_gpp: str) -> None:
    pretend_environment(checkout)
    if fault == "interrupted":
        (checkout / ".venv" / ".byol-lane").unlink()
    elif fault == "lock changed":
        with (checkout / "requirements" / "floor.lock").open("a", encoding="utf-8") as lock:
            lock.write("# one more line\n")
    elif fault == "folder moved":
        checkout = checkout.rename(checkout.with_name("elsewhere"))
    else:
        (checkout / ".venv" / "bin" / "python").unlink()
    outcome = make_env(checkout, PATH=path_without_gpp)
    # It set about making one, and so met the compiler that this test took away.
    assert outcome.returncode == 1
    assert "missing: g++" in outcome.stderr


def test_make_help_lists_every_target() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    declared = re.search(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    assert declared is not None
    listed = subprocess.run(
        ["make", "--no-print-directory"], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout
    assert re.findall(r"^  make ([a-z-]+) ", listed, flags=re.MULTILINE) == declared.group(1).split()
