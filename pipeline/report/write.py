"""Writes a run's report beside its summary, hands the run to MLflow, and never makes a good run a failed one."""

import json
import logging
import pathlib
import shlex
from typing import TYPE_CHECKING, Any

from rich.console import Console

from components.staging import read_either, write_atomically
from pipeline.report import tracking
from pipeline.root import REPORT_FILE, Root

if TYPE_CHECKING:
    from pipeline.report.run_store import StoredRun

_NUMBERS = ("linear_accuracy", "random_encoder_linear_accuracy", "knn_accuracy", "seconds")
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

    found = facts.gather(run, summary, root)
    summary_file = root.summary(run_id)
    path = summary_file.with_name(REPORT_FILE)
    write_atomically(path, page.render(found, path.parent))
    if json.loads(read_either(root.latest_summary))["run_id"] == run.run_id:
        write_atomically(root.latest_report, page.render(found, root.latest_report.parent))
    test = found.test
    projector.write(
        summary_file.with_name(projector.FOLDER),
        images=test.images[test.sample],
        labels=test.labels[test.sample],
        predicted=None if test.probabilities is None else test.probabilities[test.sample].argmax(1),
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
    summary = json.loads(read_either(summary_file))
    from pipeline.report.run_store import StoredRun

    run = StoredRun(root.metadata, summary["run_id"])
    if run.pruned:
        raise ValueError(
            f"The files of {', '.join(run.pruned)} of the run {run_id} were pruned, so its report cannot be written "
            f"again. Its numbers are in {summary_file}, and `byol history --root {shlex.quote(str(root.path))}` tells "
            "its verdict."
        )
    return summary, run


def write_after_run(root: Root, run_id: str, console: Console) -> None:
    """Writes the report of a run that has just finished; says in one line where it is, or why there is none."""
    try:
        console.print(f"Report: {write_report(root, run_id)}", highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print(
            f"No report: interrupted. `byol report --root {shlex.quote(str(root.path))}` writes it.",
            highlight=False,
        )
    except Exception as error:
        # The run is finished and its verdict stands; a page about it must not change that, whatever it stumbles over.
        _LOGGER.exception("The report of run %s could not be written.", run_id)
        reason = (str(error).splitlines() or [""])[0]
        console.print(
            f"No report: {type(error).__name__}: {reason}", highlight=False, markup=False, soft_wrap=True
        )


def track_after_run(root: Root, run_id: str, console: Console) -> None:
    """Hands a run that has just finished to MLflow where the environment asks for it; a line says how that went."""
    if not tracking.asked():
        return
    try:
        identifier = tracking.log(tracked(root, run_id))
        console.print(f"MLflow: logged as run {identifier}.", highlight=False, markup=False, soft_wrap=True)
    except KeyboardInterrupt:
        console.print("Not logged to MLflow: interrupted.", highlight=False)
    except Exception as error:
        # The run is finished and its verdict stands; a server elsewhere must not change that, whatever it answers.
        _LOGGER.exception("The run %s could not be logged to MLflow.", run_id)
        reason = (str(error).splitlines() or [""])[0].rstrip(".")
        console.print(
            f"Not logged to MLflow: {type(error).__name__}: {reason}.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def tracked(root: Root, run_id: str) -> tracking.TrackedRun:
    """What MLflow is told of a finished run.

    Raises:
        OSError: its files cannot be read.
        KeyError: the run has no such node or output.
    """
    summary_file = root.summary(run_id)
    summary = json.loads(read_either(summary_file))
    from tfx.utils import path_utils

    from pipeline import pipeline
    from pipeline.report import facts, page
    from pipeline.report.run_store import StoredRun
    from trainer.byol.run_fn import HISTORY_FILE

    run = StoredRun(root.metadata, summary["run_id"])
    told = json.loads(run.told(pipeline.PUSHER, "custom_config") or "{}").get("lineage", {})
    verdict = pathlib.Path(run.output(facts.VERDICT, "ModelEvaluation").uri) / facts.VERDICT_FILE
    documents = [summary_file, summary_file.with_name(REPORT_FILE), verdict]
    history = pathlib.Path(run.output(pipeline.PRETRAINER, "ModelRun").uri) / HISTORY_FILE
    return tracking.TrackedRun(
        run_id=summary["run_id"],
        tags={
            "mlflow.source.name": "byol-tfx",
            "byol.root": str(root.path),
            "byol.data": summary["data"],
            "byol.blessed": "yes" if summary["blessed"] else "no",
            "byol.pushed_version": str(summary["pushed_version"] or "none"),
            "byol.code_digest": str(told.get("code_digest", "not recorded")),
        },
        params={"preset": summary["preset"], **page.flat(told.get("settings", {}))},
        metrics={name: summary[name] for name in _NUMBERS if summary[name] is not None},
        epochs=facts.read_history(history),
        files=[path for path in documents if path.is_file()],
        model=pathlib.Path(path_utils.serving_model_path(run.output(pipeline.LINEAR_PROBE, "Model").uri)),
    )
