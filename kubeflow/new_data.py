"""Keeps a recurring run from training and pushing again without new data: two small tasks around all others. No TFX.

The first looks at the data when the run starts and says what it found, if that is new; the tasks that start the
pipeline run on that condition, and KFP skips what waits for a skipped one. The last writes down what was found once all
has ended well: a run that failed is made again.

    python -m kubeflow.new_data look CODE_DIGEST RECIPE DATA SPAN MARK ANSWER
    python -m kubeflow.new_data done CODE_DIGEST FOUND MARK
"""

import dataclasses
import hashlib
import json
import pathlib
import re
import sys
from collections.abc import Callable
from typing import Any

from components.data import cifar10
from components.staging import write_atomically
from kubeflow import spec_checks
from kubeflow.compiled import Compiled, add_command
from kubeflow.config import KubeflowConfig
from kubeflow.entrypoint import FOUND, check_code, code_digest
from pipeline.spans import arrivals

LOOK, DONE = "new-data", "data-done"
MARKS = "schedules"
# The answer when there is nothing new: no empty text, as a store of values may take that for none.
NOTHING = "nothing"
# The driver decides for a container's task as well (backend/src/v2/driver/driver.go:288 at KFP 2.5.0, container.go:87
# at 2.16.1), and Argo omits what waits for a skipped one (`depends`, compiler/argocompiler/dag.go:654 and 710).
CONDITION = f"inputs.parameter_values['{FOUND}'] != '{NOTHING}'"
_COMMAND = ("python", "-m", "kubeflow.new_data")
_TEXT = {"parameterType": "STRING"}
_LATEST = "latest"


def look(recipe: str, data: pathlib.Path, span: str, mark: pathlib.Path) -> str:
    """Digest of the data and of what is made of it; NOTHING if the last run that ended well had the same.

    Args:
        recipe: digest of settings and code.
        data: the folder of the data.
        span: "latest", a number, or "" for a folder of records.
        mark: what `done` wrote.
    """
    folder = data
    if span:
        numbers = [
            path.name.removeprefix(cifar10.SPAN_FOLDER) for path in data.glob(f"{cifar10.SPAN_FOLDER}*")
        ]
        newest = max((int(number) for number in numbers if re.fullmatch("[0-9]+", number)), default=0)
        folder = data / f"{cifar10.SPAN_FOLDER}{newest if span == _LATEST else span}"
    found = hashlib.sha256(f"{recipe} {folder.name} {arrivals.fingerprint(folder)}".encode()).hexdigest()
    return NOTHING if mark.exists() and mark.read_text().strip() == found else found


def only_new(compiled: Compiled, config: KubeflowConfig, span: Any, name: str) -> Compiled:
    """The pipeline with the two tasks; it does nothing when the data is what it was at the last run of this name.

    Args:
        compiled: for KFP.
        config: the cluster's settings.
        span: as `compile_pipeline` takes it.
        name: of the recurring run; two of them train on the same data.
    """
    spec, platform = json.loads(json.dumps([compiled.spec, compiled.platform]))
    tasks = spec["root"]["dag"]["tasks"]
    recipe = hashlib.sha256(json.dumps([spec, compiled.pipeline_root], sort_keys=True).encode()).hexdigest()
    mark = f"{config.volume.rstrip('/')}/{MARKS}/{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    answer = f"{{{{$.outputs.parameters['{FOUND}'].output_file}}}}"
    last = sorted(
        tasks.keys() - {before for task in tasks.values() for before in spec_checks.predecessors(task)}
    )
    for task in [task for task in tasks.values() if not spec_checks.predecessors(task)]:
        component = spec["components"][task["componentRef"]["name"]]
        component.setdefault("inputDefinitions", {}).setdefault("parameters", {})[FOUND] = _TEXT
        _give_found(task)
        task["triggerPolicy"] = {"condition": CONDITION}
    looked = "" if span is None else str(span)
    arguments = ["look", code_digest(), recipe, config.folder("data"), looked, mark, answer]
    add_command(spec, platform, LOOK, ([*_COMMAND], arguments), config.steps.data, config)
    spec["components"][f"comp-{LOOK}"]["outputDefinitions"] = {"parameters": {FOUND: _TEXT}}
    given = f"{{{{$.inputs.parameters['{FOUND}']}}}}"
    add_command(
        spec, platform, DONE, ([*_COMMAND], ["done", code_digest(), given, mark]), config.steps.data, config
    )
    spec["components"][f"comp-{DONE}"]["inputDefinitions"] = {"parameters": {FOUND: _TEXT}}
    _give_found(tasks[DONE])
    tasks[DONE]["dependentTasks"] = sorted({*last, LOOK})
    made = dataclasses.replace(compiled, job={**compiled.job, "pipelineSpec": spec}, platform=platform)
    problems = spec_checks.problems(made.spec, made.platform)
    if problems:
        raise ValueError(f"The compiled pipeline would be refused: {' '.join(problems)}")
    return made


def _give_found(task: dict[str, Any]) -> None:
    source = {"taskOutputParameter": {"producerTask": LOOK, "outputParameterKey": FOUND}}
    task.setdefault("inputs", {}).setdefault("parameters", {})[FOUND] = source
    task["dependentTasks"] = sorted({*task.get("dependentTasks", []), LOOK})


def main(argv: list[str]) -> None:
    """Runs one of the two tasks."""
    action, digest, *rest = argv
    check_code(digest)
    actions: dict[str, Callable[..., None]] = {"look": _look, "done": _done}
    actions[action](*rest)


def _look(recipe: str, data: str, span: str, mark: str, answer: str) -> None:
    found = look(recipe, pathlib.Path(data), span, pathlib.Path(mark))
    sys.stdout.write(f"{'Nothing new' if found == NOTHING else 'There is new data'} in {data}.\n")
    write_atomically(pathlib.Path(answer), found)


def _done(found: str, mark: str) -> None:
    write_atomically(pathlib.Path(mark), found + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
