"""Hooks in a file, so that no address and no token stands in a process list, a unit or a shell's history."""

import configparser
import pathlib
import stat
import urllib.parse
from collections.abc import Mapping

from pipeline.retrain.hooks import KINDS, HookConfig

SECTION = "hooks"
_EXAMPLE = f"[{SECTION}] and below it lines such as on_failed = https://user:password@example.org/hook"


def chosen(path: pathlib.Path | None, given: Mapping[str, str]) -> HookConfig:
    """The hooks of the file, and over them those of the command line that are not empty.

    Args:
        path: the file; None for none.
        given: hooks by `on_<kind>`.

    Raises:
        ValueError: the file is none of hooks, or a hook could never work. Nothing of the file is in the message.
        OSError: it cannot be read.
    """
    told = {name: hook for name, hook in given.items() if hook}
    if path is None:
        return HookConfig(**told)  # type: ignore[arg-type] # names of hooks alone
    found = read(path)
    try:
        return HookConfig(**{**found, **told})  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def read(path: pathlib.Path) -> dict[str, str]:
    """The hooks that a file in INI format names under `[hooks]`, by `on_<kind>`.

    Raises:
        ValueError: it is none such; the message quotes nothing of it, which may be secret.
        OSError: it cannot be read.
    """
    parser = configparser.ConfigParser(interpolation=None, delimiters=("=",))
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (configparser.Error, UnicodeDecodeError) as error:
        line = getattr(error, "lineno", None) or next(
            (number for number, _ in getattr(error, "errors", [])), None
        )
        place = f" (line {line})" if line else ""
        # The parser's own words repeat the line.
        raise ValueError(f"{path} is no file of hooks{place}; expected {_EXAMPLE}.") from None
    if not parser.has_section(SECTION):
        raise ValueError(f"{path} is no file of hooks; expected {_EXAMPLE}.")
    known = {f"on_{kind}" for kind in KINDS}
    found = dict(parser[SECTION])
    strange = sorted(found.keys() - known)
    if strange:
        raise ValueError(
            f"{path} names {strange[0]!r} under [{SECTION}]; expected one of {', '.join(sorted(known))}."
        )
    return found


def open_to_others(path: pathlib.Path | None) -> str:
    """What to say of a file that every user of the machine may read; "" of any other."""
    if path is None or not path.stat().st_mode & stat.S_IROTH:
        return ""
    return f"{path} can be read by every user of this machine and may hold secrets: `chmod 600` it."


def check_public(given: Mapping[str, str]) -> None:
    """Refuses a password among the words of a schedule: they stand in a unit or a crontab, and in the process list.

    Args:
        given: hooks by `on_<kind>`, as the command line has them.

    Raises:
        ValueError: one is an address with a password, which is not quoted.
    """
    for name, hook in given.items():
        if "://" in hook.partition(" ")[0] and urllib.parse.urlsplit(hook).password:
            raise ValueError(
                f"{name} holds a password, which the schedule and the process list would show to others. Write it into "
                f"a file, {_EXAMPLE}, and give --hooks-file."
            )
