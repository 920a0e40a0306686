"""Every place that writes a file says what makes it survive a power cut."""

import ast
import pathlib
import re

PROJECT = pathlib.Path(__file__).resolve().parents[2]
FOLDERS = ("components", "trainer", "pipeline", "kubeflow")
_OUTPUT = "an artifact: synced by pipeline.run.on_disk before its node is complete"
_STAGED = "in a staged folder, which is synced before it gets its name"
# Every place that writes a file by itself, and what makes the file survive a power cut, or why it need not.
WRITES = {
    "components/data/anomaly_gate.py": _OUTPUT,
    "components/data/archive.py": _STAGED,
    "components/data/decoded_parts.py": "into the temporary file of written_whole; elsewhere its checksums tell",
    "components/data/made_whole.py": _STAGED
    + "; elsewhere whole files, and a marker until the last one is there",
    "components/data/picture_import.py": _STAGED,
    "components/data/public_sets.py": _STAGED
    + "; what is unpacked to be read once lies in a temporary folder",
    "components/data/synthetic.py": _STAGED,
    "components/gate/label_check.py": _OUTPUT,
    "components/gate/model_card.py": _OUTPUT,
    "components/gate/robustness.py": _OUTPUT,
    "components/gate/verdict.py": _OUTPUT,
    "components/serving/candidates.py": _STAGED,
    "components/serving/serving_check.py": _OUTPUT + "; requests to a process that the check ends with",
    "components/serving/serving_folder.py": "in a staging folder, which is synced before it is renamed",
    "components/serving/serving_requests.py": "an answer to the process that waits for it; imports nothing of ours",
    "components/staging.py": "the one place",
    "kubeflow/bindings.py": _STAGED + "; or in a folder of the cluster's own store",
    "kubeflow/entrypoint.py": "an answer to KFP's launcher, which waits for it",
    "kubeflow/resolving.py": "in a folder of the cluster's own store; an answer to KFP's launcher, which waits for it",
    "pipeline/console.py": "the log of a run: nothing is decided by it",
    "pipeline/run/engine_check.py": "a probe of the workers, read at once; nothing is decided by it later",
    "pipeline/run/worker_probe.py": "a probe of the workers, read at once; nothing is decided by it later",
    "pipeline/root.py": "the lock, which says who holds it while it is held",
    "pipeline/settings_page.py": "a page of docs/, by make",
    "pipeline/retrain/outbox.py": "into the temporary file of written_whole",
    "pipeline/use/embeddings.py": "into the temporary file of written_whole",
    "trainer/byol/checkpoint.py": "into the temporary file of written_whole",
    "trainer/byol/job.py": "what the processes of one training tell each other while they run",
    "trainer/byol/pretraining.py": _OUTPUT,
    "trainer/byol/run_fn.py": _OUTPUT,
    "trainer/probe/run_fn.py": _OUTPUT,
}

_FOR_PEOPLE = "for people to look at, or asked for: nothing is decided by it"
# Every place that writes one copy and no second, and what happens where a file system empties it all the same.
ONCE = {
    "components/data/decoded_parts.py": "its checksums say so, and the pictures are decoded again",
    "components/serving/serving_folder.py": "second copies of `serving.json`, whose names say the highest number",
    "components/staging.py": "the one place",
    "kubeflow/compiled.py": _FOR_PEOPLE,
    "kubeflow/failures.py": _FOR_PEOPLE,
    "kubeflow/new_data.py": "without its mark a span is looked at once more, and found done",
    "pipeline/cli.py": "a marker is empty",
    "pipeline/past/commands.py": _FOR_PEOPLE,
    "pipeline/past/dashboard.py": _FOR_PEOPLE,
    "pipeline/report/projector.py": _FOR_PEOPLE,
    "pipeline/report/write.py": _FOR_PEOPLE,
    "pipeline/retrain/notices.py": "what the hook was told of odd things: it is told again",
    "pipeline/retrain/outbox.py": "a draft: a person's decision stands, its event is not told",
    "pipeline/retrain/vital_signs.py": "gauges begin anew and a counter at zero, as Prometheus expects of it",
    "pipeline/run/local_runner.py": "a data set's schema, written before each run",
    "pipeline/schedule/systemd.py": "systemd refuses an empty unit by name; the same command writes it again",
    "pipeline/use/embeddings.py": _FOR_PEOPLE,
    "trainer/byol/checkpoint.py": "its digest says so, and the checkpoint before it is taken",
}


def _calls(*names: str) -> set[str]:
    """The files in which a function of that name is called."""
    return {
        str(path.relative_to(PROJECT))
        for folder in FOLDERS
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in names
    }


def _writes(call: ast.Call) -> bool:
    """Whether a call makes, replaces or renames a file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "open":
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [str(one.value) for one in given if isinstance(one, ast.Constant)]
        return any(re.fullmatch("[wax]b?[+]?b?|r[+]b?|[wax]t", mode) for mode in modes)
    if name == "replace":  # a path's has one argument, a text's has two
        return len(call.args) == 1 and not call.keywords
    return name in ("write_text", "write_bytes", "rename", "touch")


def test_whoever_writes_a_file_says_how_it_survives_a_power_cut():
    wrote = {
        str(path.relative_to(PROJECT))
        for folder in FOLDERS
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _writes(node)
    }
    assert wrote == set(WRITES)


def test_whoever_writes_one_copy_says_what_happens_without_it():
    assert _calls("write_atomically", "written_whole") == set(ONCE)


def test_what_is_written_twice_is_read_where_it_was_written():
    """Whoever reads a file of `write_twice` by itself would miss the copy."""
    twice = _calls("write_twice") - {"components/staging.py"}
    assert twice <= _calls("read_either") | {"pipeline/run/local_runner.py", "kubeflow/entrypoint.py"}
