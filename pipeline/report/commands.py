"""Commands for looking at runs: the report again, TensorBoard."""

import json
import os
import pathlib
import warnings
from typing import Annotated

import typer
from rich.console import Console

from components.staging import read_either
from pipeline.console import existing_root, fail, loading, status, stop

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Adds the commands to the command line."""
    app.command()(report)
    app.command()(tensorboard)


def report(
    root: Annotated[pathlib.Path, typer.Option(help="Folder that `byol run` was given.")],
    run: Annotated[
        str | None, typer.Argument(help="Id of the run; the last finished one if left out.")
    ] = None,
) -> None:
    """Write the report of a finished run as one HTML file; `byol run` writes it by itself."""
    place = existing_root(root)
    if not place.latest_summary.is_file():
        stop(f"There is no finished run in {root}; --root is the folder that `byol run` was given.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    from pipeline.report.write import stored, write_report

    told = Console(stderr=True)
    try:
        run_id = run or json.loads(read_either(place.latest_summary))["run_id"]
        stored(place, run_id)
        with loading(told):
            from pipeline.report import facts as _  # noqa: F401 - the long imports, while something moves
        told.print(
            f"Reading the run {run_id}, asking its model about the test images and drawing their map.",
            highlight=False,
            soft_wrap=True,
        )
        typer.echo(f"Wrote {write_report(place, run_id)}.")
    except (ValueError, OSError) as error:
        fail(error)
    except KeyError as error:
        stop(f"The run did not record {error}, which the report needs.", _FAILED)


def tensorboard(
    root: Annotated[pathlib.Path, typer.Option(help="Folder that `byol run` was given.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 6006,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "localhost",
) -> None:
    """Show every run of a root in TensorBoard: curves, and the test embeddings in its projector."""
    place = existing_root(root)
    typer.echo("Loading TensorBoard.")
    from pipeline.report import curves

    try:
        curves.serve(place, host, port, typer.echo)
    except ValueError as error:
        fail(error)
    except OSError as error:
        stop(f"Cannot write into {root}: {error.strerror}.", status(error))
    except KeyboardInterrupt:
        return  # it was still loading
