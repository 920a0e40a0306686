"""The command that writes a report again."""

import json
import os
import pathlib
import warnings
from typing import Annotated

import typer

from pipeline.console import stop
from pipeline.root import Root

_FAILED = 1


def register(app: typer.Typer) -> None:
    """Adds the command to the command line."""
    app.command()(report)


def report(
    root: Annotated[pathlib.Path, typer.Option(help="Folder that `byol run` was given.")],
    run: Annotated[
        str | None, typer.Argument(help="Id of the run; the last finished one if left out.")
    ] = None,
) -> None:
    """Write the report of a finished run as one HTML file; `byol run` writes it by itself."""
    place = Root(root.absolute())
    if not place.latest_summary.is_file():
        stop(f"There is no finished run in {root}; --root is the folder that `byol run` was given.")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    warnings.filterwarnings("ignore")
    from pipeline.report.write import write_report

    try:
        run_id = run or json.loads(place.latest_summary.read_text())["run_id"]
        typer.echo(f"Wrote {write_report(place, run_id)}.")
    except (ValueError, OSError) as error:
        stop(str(error))
    except KeyError as error:
        stop(f"The run did not record {error}, which the report needs.", _FAILED)
