"""The command that makes a data set of a folder of pictures."""

import math
import os
import pathlib
import shlex
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pipeline import console
from pipeline.console import stop

if TYPE_CHECKING:
    from components.data.picture_import import Imported

_INTERRUPTED = 130
_GATE_CLASS_RATIO = 2.0  # of the data gate, which the command tells of beforehand


def register(data_app: typer.Typer) -> None:
    """Adds the command to those about data."""
    data_app.command("import")(import_)


def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="Folder with a folder a class, pictures without a label beside them or alone, or a table."
        ),
    ],
    out: Annotated[str, typer.Argument(help="The data set to make, for `byol run --data`.")],
    size: Annotated[
        str, typer.Option(help="Of every picture in pixels: 64, or 48x64 (height x width).")
    ] = "32",
    test_share: Annotated[
        float, typer.Option(help="Held out for testing where SOURCE has no test/ folder.")
    ] = 0.1,
    span: Annotated[int | None, typer.Option(min=0, help="Write span N of OUT, for retraining.")] = None,
    about: Annotated[str, typer.Option(help="What the pictures are, for the model card.")] = "",
    maximum_unreadable: Annotated[
        float, typer.Option(help="Share of files that may be left out; more stops the import.")
    ] = 0.05,
) -> None:
    """Make a data set of your own pictures: class folders, pictures without labels, train/ and test/, or a table.

    JPEG, PNG, WebP, BMP, GIF and TIFF files are read, upright; what cannot be read is named and left out. Folders are
    of this machine, or addresses that Beam knows, such as gs://bucket/photos. The same command goes on where it was.
    """
    from components.data import picture_import
    from components.data.beam_path import place

    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    ) as bar:
        task = bar.add_task("Importing", total=None)
        try:
            height, width = parse_size(size)
            settings = picture_import.ImportSettings(
                height=height,
                width=width,
                test_share=test_share,
                name=out.rstrip("/").rpartition("/")[2]
                if "://" in out
                else pathlib.Path(out).absolute().name,
                pictures=about,
                maximum_unreadable=maximum_unreadable,
                workers=os.cpu_count() or 1,
            )
            imported = picture_import.import_pictures(
                place(source),
                place(out),
                settings,
                span,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        except (ValueError, OSError) as error:
            stop(f"{console.reason(error)}{_kept(out, span)}", console.status(error))
        except KeyboardInterrupt:
            stop(f"Interrupted. The same command goes on.{_kept(out, span)}", _INTERRUPTED)
    for path, reason in imported.unreadable.items():
        typer.echo(f"Left out: {path}: {reason}.", err=True)
    _tell(imported, out)


def _kept(out: str, span: int | None) -> str:
    """Where decoded pictures of an import of this machine are that did not end, if there are any."""
    from components.data import cifar10, made_whole

    target = pathlib.Path(out) if span is None else pathlib.Path(out) / f"{cifar10.SPAN_FOLDER}{span}"
    folder = made_whole.work_folder(target)
    if not isinstance(folder, pathlib.Path) or not folder.is_dir():
        return ""
    return f" What was decoded is kept in {folder}; remove it if you will not import this again."


def parse_size(text: str) -> tuple[int, int]:
    """Height and width of "64" or "48x64".

    Raises:
        ValueError: another text.
    """
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
        raise ValueError(
            f"A size is pixels, such as 64, or height x width, such as 48x64; received {text!r}."
        )
    return int(parts[0]), int(parts[-1])


def _tell(imported: "Imported", out: str) -> None:
    train, data_set = sum(imported.train), imported.data_set
    test = sum(imported.test) + imported.test_unlabelled
    held_out = f"{test} for testing" + (" without a label" if imported.test_unlabelled else "")
    typer.echo(
        f"{imported.folder}: {data_set.in_words}; {train} labelled pictures and {imported.unlabelled} without a label "
        f"for training, {held_out}; {imported.repeats} repeated ones and {len(imported.unreadable)} unreadable files "
        "left out."
    )
    root = f"runs/{data_set.name.replace(' ', '-')}"
    command = f"byol run --preset cpu --data {shlex.quote(str(out))} --root {shlex.quote(root)}"
    if not data_set.classes:
        typer.echo(
            "No picture has a label, so the gate can judge nothing and pushes the encoder only where it is told to. "
            f"Next: {command} --set gate.without_labels=push"
        )
        return
    ratio = max(imported.train) / max(1, min(imported.train))
    if ratio > _GATE_CLASS_RATIO:
        typer.echo(
            f"The largest class has {ratio:.1f} times as many training pictures as the smallest; the data gate takes "
            f"at most {_GATE_CLASS_RATIO:g}. If that is as it should be, add --set data.class_ratio={math.ceil(ratio)}."
        )
    typer.echo(f"Next: {command} --set gate.minimum_test_images={test}")
