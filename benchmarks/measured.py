"""Writes what a finished run measured into the file that README and tutorials take their numbers from.

    .venv/bin/python -m benchmarks.measured cifar10-cpu runs/cifar10/latest/summary.json "byol run --preset cpu ..."
    .venv/bin/python -m benchmarks.measured demo runs/demo/latest/summary.json "byol run --preset demo --root runs/demo"

An entry says who wrote it: this program, or a hand that copied it from the page in `source`, as the first ones were.
tests/unit/test_measured.py then names each page that says another number.
"""

import argparse
import json
import pathlib
from typing import Any

MEASURED = pathlib.Path(__file__).resolve().parents[1] / "docs" / "results" / "measured.json"
_MINUTE = 60


def entry(summary: dict[str, Any], command: str) -> dict[str, Any]:
    """What the pages need of a run's `summary.json`: accuracies in [0, 1], whole minutes, run and command."""
    return {
        "written_by": "benchmarks.measured",
        "source": "summary.json",
        "run": summary["run_id"],
        "command": command,
        "accuracy": round(summary["linear_accuracy"], 4),
        "untrained": round(summary["random_encoder_linear_accuracy"], 4),
        "knn": round(summary["knn_accuracy"], 4),
        "minutes": round(summary["seconds"] / _MINUTE),
    }


def record(path: pathlib.Path, name: str, measured: dict[str, Any]) -> None:
    """Puts the entry into the file; the others stay."""
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**known, name: measured}, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the entry, such as cifar10-cpu")
    parser.add_argument("summary", type=pathlib.Path, help="summary.json of a finished run")
    parser.add_argument("command", help="that made the run")
    given = parser.parse_args()
    summary = json.loads(given.summary.read_text(encoding="utf-8"))
    record(MEASURED, given.name, entry(summary, given.command))


if __name__ == "__main__":
    main()
