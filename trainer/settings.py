"""Frozen configuration dataclasses to and from plain values, with errors that name the setting."""

import ast
import dataclasses
import difflib
import functools
import types
import typing
from typing import Any, TypeVar

Config = TypeVar("Config")


def from_dict(cls: type[Config], values: dict[str, Any], prefix: str = "") -> Config:
    """Builds the dataclass `cls`, nested ones included, from plain values such as `dataclasses.asdict` gives.

    Raises:
        ValueError: for a name that `cls` does not have or a value of another type; it says what would be right.
    """
    types_of = typing.get_type_hints(cls)
    for name in values:
        if name not in types_of:
            raise ValueError(unknown_setting(prefix + name, [prefix + known for known in types_of]))
    return cls(**{name: _convert(types_of[name], value, prefix + name) for name, value in values.items()})


def override(config: Config, assignments: list[str]) -> Config:
    """Returns `config` with each "group.name=value" applied; values are Python literals, or plain text.

    Raises:
        ValueError: for a malformed assignment, an unknown setting or a value of the wrong type.
    """
    values = dataclasses.asdict(config)  # type: ignore[call-overload]
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator or not path:
            raise ValueError(f"A setting is written name=value; received {assignment!r}.")
        _set(config, values, path.strip(), _literal(text.strip()))
    return from_dict(type(config), values)


def names(config: Any, prefix: str = "") -> list[str]:
    """Every setting's dotted name, in order."""
    found = []
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        nested = dataclasses.is_dataclass(value)
        found += names(value, f"{prefix}{field.name}.") if nested else [prefix + field.name]
    return found


def lines(config: Any) -> list[str]:
    """Every setting as `override` takes it, "group.name=value", in order."""
    return [f"{name}={functools.reduce(getattr, name.split('.'), config)}" for name in names(config)]


def unknown_setting(name: str, known: list[str]) -> str:
    """The one line said of a name that is none of `known`: the closest one, or all."""
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean {close[0]!r}?" if close else f"Known: {', '.join(known)}."
    return f"There is no setting {name!r}. {hint}"


def _set(config: Any, values: dict[str, Any], path: str, value: Any) -> None:
    *groups, last = path.split(".")
    if path not in names(config):
        raise ValueError(unknown_setting(path, names(config)))
    for group in groups:
        values = values[group]
    values[last] = value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)


def _convert(kind: Any, value: Any, name: str) -> Any:
    kind = _fitting(kind, value)
    if typing.get_origin(kind) is dict and isinstance(value, dict):
        return _by_name(kind, value, name)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return from_dict(typing.cast(type, kind), value, f"{name}.")
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        return _tuple(kind, value, name)
    if typing.get_args(kind)[1:] == (Ellipsis,) and not isinstance(value, str):
        return _tuple(kind, [value], name)  # one value for all
    accepted = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if float in accepted and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    matches = any(isinstance(value, typing.get_origin(option) or option) for option in accepted)
    if not matches or (isinstance(value, bool) and bool not in accepted):
        expected = " or ".join(getattr(option, "__name__", str(option)) for option in accepted)
        raise ValueError(f"{name} must be {expected}; received {value!r}.")
    return value


def _fitting(kind: Any, value: Any) -> Any:
    """Of a choice between a tuple and a dictionary, the one that `value` is; any other type as it is."""
    options = [option for option in typing.get_args(kind) if typing.get_origin(option) in (tuple, dict)]
    if not isinstance(kind, types.UnionType) or not options:
        return kind
    wanted = dict if isinstance(value, dict) else tuple
    return next((option for option in options if typing.get_origin(option) is wanted), options[0])


def _by_name(kind: Any, value: dict[Any, Any], name: str) -> dict[str, Any]:
    _, kind_of_each = typing.get_args(kind)
    others = [key for key in value if not isinstance(key, str)]
    if others:
        raise ValueError(f"{name} is by name, {{'NAME': value}}; received the key {others[0]!r}.")
    return {key: _convert(kind_of_each, each, f"{name}[{key!r}]") for key, each in value.items()}


def _tuple(kind: Any, value: Any, name: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if kinds[-1] is Ellipsis:
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise ValueError(f"{name} needs {len(kinds)} values; received {value!r}.")
    return tuple(_convert(k, v, f"{name}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
