"""What a call of retraining is asked on the command line, wherever its runs happen: declared once."""

import dataclasses
import functools
import inspect
import pathlib
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pipeline.config import PRESETS
from trainer.byol.config import WARM_STARTS

_HOOK = "A command line, or an address that gets a POST; told of each retraining that "
_WHOLE = "options"  # the argument of a command that stands for all of them

PresetOption = Annotated[
    str, typer.Option("--preset", help=f"What is trained and what it must reach: {', '.join(PRESETS)}.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="Change one setting of the preset; repeat for more."),
]
HooksFileOption = Annotated[
    pathlib.Path | None,
    typer.Option(
        help="File with [hooks] and lines such as on_failed = https://...; keeps secrets out of process lists."
    ),
]


@dataclasses.dataclass(frozen=True)
class Options:
    """What every place is asked; each attribute is an option of the command line, as typer reads it."""

    window: Annotated[int, typer.Option(help="How many of the newest spans are trained on.")] = 4
    warm_start: Annotated[
        str | None,
        typer.Option(
            help=f"What a training starts from: {', '.join(WARM_STARTS)}; the preset's if left out."
        ),
    ] = None
    attempts: Annotated[
        int, typer.Option(help="How often a failing training is begun before it waits for a new span.")
    ] = 3
    accept: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SPAN[:KINDS]",
            help="A span to let through whose data was refused; recorded. 7:class_balance lets through no other kind "
            "of finding. Repeat for more.",
        ),
    ] = None
    exclude: Annotated[
        list[int] | None, typer.Option(help="A span never to train on again. Repeat for more.")
    ] = None
    keep_runs: Annotated[
        int,
        typer.Option(help="How many of the newest runs keep what they left; what is served stays anyway."),
    ] = 3
    keep_spans: Annotated[
        int, typer.Option(help="Of how many of the newest spans Examples stay to be compared with.")
    ] = 8
    assignments: SetOption = None
    on_pushed: Annotated[str, typer.Option(help=f"{_HOOK}pushed a version.")] = ""
    on_refused: Annotated[str, typer.Option(help=f"{_HOOK}was refused.")] = ""
    on_failed: Annotated[str, typer.Option(help=f"{_HOOK}failed.")] = ""
    on_candidate: Annotated[str, typer.Option(help=f"{_HOOK}made a model that waits for approval.")] = ""
    on_odd: Annotated[
        str, typer.Option(help=f"{_HOOK}found something among the spans that it will not train on.")
    ] = ""
    hooks_file: HooksFileOption = None
    marker_hours: Annotated[
        float, typer.Option(help="For how long a span may lack its marker before it is told.")
    ] = 24.0
    metrics: Annotated[
        pathlib.Path | None,
        typer.Option(
            help="A .prom file in the folder of Prometheus' node_exporter; one in --root if left out."
        ),
    ] = None

    @classmethod
    def of(cls, values: dict[str, Any]) -> "Options":
        """Those among the values of a command's arguments, by name."""
        return cls(**{field.name: values[field.name] for field in dataclasses.fields(cls)})


def spread(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose argument `options` is given on the command line as each option of its own, after the others."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    own = [
        one.replace(kind=keyword)
        for one in inspect.signature(command).parameters.values()
        if one.name != _WHOLE
    ]
    ours = [
        inspect.Parameter(field.name, keyword, default=field.default, annotation=field.type)
        for field in dataclasses.fields(Options)
    ]

    @functools.wraps(command)
    def spread_out(**values: Any) -> None:
        command(**{one.name: values[one.name] for one in own}, options=Options.of(values))

    del spread_out.__wrapped__  # type: ignore[attr-defined] # whose arguments are others
    spread_out.__signature__ = inspect.Signature([*own, *ours])  # type: ignore[attr-defined]
    spread_out.__annotations__ = {one.name: one.annotation for one in (*own, *ours)}
    return spread_out
