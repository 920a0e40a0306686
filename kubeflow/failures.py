"""What a step that failed had found, in its log and on the volume: KFP uploads nothing of it but the log."""

import contextlib
import json
import pathlib
import shutil
import sys
from collections.abc import Iterator, Mapping

from components.staging import write_atomically
from pipeline.console import cause

REASON_FILE = "failed.json"
# Reports of gates: findings.json, agreement.json, verdict.json and verdict.md. Larger files are data.
_REPORTS = (".json", ".md")
_REPORT_BYTES = 256 * 1024
# Older runs' reports are removed, so that a fault that comes back every night does not fill the volume.
KEPT_RUNS = 20
_RUN, _TASK = -4, -3


@contextlib.contextmanager
def kept(outputs: Mapping[str, pathlib.Path], folder: pathlib.Path | None) -> Iterator[None]:
    """Tells and keeps what a step had written into its outputs when it failed; then it fails as it did.

    Args:
        outputs: where each output lies, by key.
        folder: of this step in this run, on the volume; None for the log alone.
    """
    try:
        yield
    except Exception as error:
        # The boundary between TFX and a person: whatever it was, what was found is told with it.
        found = reports(outputs)
        for name, text in found.items():
            sys.stderr.write(f"--- {name} of the step that failed:\n{text}\n")
        if folder is not None:
            _keep(folder, {**found, REASON_FILE: json.dumps({"failed": cause(error)}) + "\n"})
        raise


def step_folder(failures: str, addresses: list[str]) -> pathlib.Path | None:
    """Where a step's reports are kept: `RUN/TASK` below `failures`; None where that is not known.

    An output's address is ROOT/PIPELINE/RUN/TASK/SALT/KEY (provisionOutputs, backend/src/v2/driver/driver.go:729
    at 2.16.1 and :2046 at 2.5.0).
    """
    parts = addresses[0].split("/") if addresses else []
    if not failures or len(parts) < -_RUN:
        return None
    return pathlib.Path(failures, parts[_RUN], parts[_TASK])


def reports(outputs: Mapping[str, pathlib.Path]) -> dict[str, str]:
    """The texts of small reports by `OUTPUT/FILE`."""
    return {
        f"{key}/{path.relative_to(place).as_posix()}": path.read_text(errors="replace")
        for key, place in sorted(outputs.items())
        for path in sorted(place.rglob("*"))
        if path.suffix in _REPORTS and path.is_file() and path.stat().st_size <= _REPORT_BYTES
    }


def _keep(folder: pathlib.Path, texts: Mapping[str, str]) -> None:
    try:
        for name, text in texts.items():
            write_atomically(folder / name, text)
        runs = sorted(folder.parent.parent.iterdir(), key=lambda path: path.stat().st_mtime)
        for old in runs[:-KEPT_RUNS]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        # The volume may be why it failed; the step's own fault is the one to be told.
        sys.stderr.write(f"The reports could not be kept in {folder}: {error}\n")
