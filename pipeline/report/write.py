"""Writes a run's report beside its summary, and never makes a good run a failed one."""

import json
import logging
import pathlib
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.staging import write_atomically
from pipeline.root import Root

if TYPE_CHECKING:
    from pipeline.report.run_store import StoredRun

REPORT_FILE = "report.html"
_LOGGER = logging.getLogger(__name__)


def write_report(root: Root, run_id: str) -> pathlib.Path:
    """Writes the report of a finished run and returns its file, `report.html` beside `summary.json`.

    The last run's is written into `latest` as well.

    The embeddings that it shows are written for TensorBoard as well, in the folder `projector` beside it.

    Args:
        root: of the run.
        run_id: TFX's id of the run, or the name of its folder.

    Raises:
        ValueError: there is no such run, or its files were pruned.
        OSError: what the run left behind cannot be read, or the report not be written.
    """
    summary, run = stored(root, run_id)
    from pipeline.report import facts, page, projector

    found = facts.gather(run, summary)
    summary_file = root.summary(run_id)
    path = summary_file.with_name(REPORT_FILE)
    text = page.render(found)
    write_atomically(path, text)
    if json.loads(root.latest_summary.read_text())["run_id"] == run.run_id:
        write_atomically(root.latest_report, text)
    test = found.test
    projector.write(
        summary_file.with_name(projector.FOLDER),
        images=test.images[test.sample],
        labels=test.labels[test.sample],
        predicted=test.probabilities[test.sample].argmax(1),
        vectors=test.vectors,
        names=found.data_set.label_names,
    )
    return path


def stored(root: Root, run_id: str) -> "tuple[dict[str, Any], StoredRun]":
    """The summary of a finished run and its record; without TensorFlow, so that a wrong name is told at once.

    Raises:
        ValueError: there is no such run, or its files were pruned.
        OSError: what the run left behind cannot be read.
    """
    summary_file = root.summary(run_id)
    if not summary_file.is_file():
        known = (
            ", ".join(sorted(path.parent.name for path in root.path.glob("runs/*/summary.json"))) or "none"
        )
        raise ValueError(f"{root.path} has no finished run {run_id}. Finished runs: {known}.")
    summary = json.loads(summary_file.read_text())
    from pipeline.report.run_store import StoredRun

    run = StoredRun(root.metadata, summary["run_id"])
    if run.pruned:
        raise ValueError(
            f"The files of {', '.join(run.pruned)} of the run {run_id} were pruned, so its report cannot be written "
            f"again. Its numbers are in {summary_file}, and `byol history --root {root.path}` tells its verdict."
        )
    return summary, run


def write_after_run(root: Root, run_id: str, console: Console) -> None:
    """Writes the report of a run that has just finished; says in one line where it is, or why there is none."""
    try:
        console.print(f"Report: {write_report(root, run_id)}", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(f"No report: interrupted. `byol report --root {root.path}` writes it.", highlight=False)
    except Exception as error:
        # The run is finished and its verdict stands; a page about it must not change that, whatever it stumbles over.
        _LOGGER.exception("The report of run %s could not be written.", run_id)
        reason = (str(error).splitlines() or [""])[0]
        console.print(
            f"No report: {type(error).__name__}: {reason}", highlight=False, markup=False, soft_wrap=True
        )
