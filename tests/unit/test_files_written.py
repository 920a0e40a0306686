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


def _writes(call: ast.Call) -> bool:
    """Whether a call makes, replaces or renames a file."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    if name == "open":
        given = [*call.args, *(keyword.value for keyword in call.keywords)]
        modes = [str(one.value) for one in given if isinstance(one, ast.Constant)]
        return any(re.fullmatch("[wax]b?[+]?b?|r[+]b?|[wax]t", mode) for mode in modes)
    if name == "replace":  # a path's has one argument, a text's has two
        return len(call.args) == 1 and not call.keywords
    return name in ("write_text", "write_bytes", "rename")


def test_whoever_writes_a_file_says_how_it_survives_a_power_cut():
    wrote = {
        str(path.relative_to(PROJECT))
        for folder in FOLDERS
        for path in (PROJECT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and _writes(node)
    }
    assert wrote == set(WRITES)
