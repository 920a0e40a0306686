"""What a step that failed had found outlives it; KFP uploads its log alone."""

import json

import pytest

from kubeflow import entrypoint, failures
from kubeflow.config import KubeflowConfig

ROOT = "minio://mlpipeline/v2/artifacts/byol/byol/run-7/anomaly-gate/salt"


@pytest.fixture
def step(tmp_path, monkeypatch):
    """An ExecutorInput whose step had written its report and a data file, and the folder for what it leaves."""
    monkeypatch.setenv("BYOL_STAGING_ROOT", str(tmp_path))
    keys = ["report", "executor-logs"]
    recorded = {"outputs": {"artifacts": {key: {"artifacts": [{"uri": f"{ROOT}/{key}"}]} for key in keys}}}
    places, folder = entrypoint._outputs(recorded, str(tmp_path / "volume" / "failures"))
    assert folder == tmp_path / "volume" / "failures" / "run-7" / "anomaly-gate"
    assert places.keys() == {"report"}
    places["report"].mkdir(parents=True)
    (places["report"] / "findings.json").write_text('{"findings": ["darker"]}')
    (places["report"] / "rows.tfrecord.gz").write_text("data")
    (places["report"] / "large.json").write_text(" " * 300_000)
    return places, folder


def test_its_reports_are_in_the_log_and_on_the_volume(step, capsys):
    places, folder = step
    with pytest.raises(ValueError, match="mean is darker"), failures.kept(places, folder):
        raise ValueError("mean is darker")
    assert (
        'report/findings.json of the step that failed:\n{"findings": ["darker"]}' in capsys.readouterr().err
    )
    left = {
        path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()
    }
    assert left.keys() == {"report/findings.json", "failed.json"}
    assert json.loads(left["failed.json"]) == {"failed": "mean is darker"}


def test_a_step_that_ends_well_leaves_nothing_there(step):
    places, folder = step
    with failures.kept(places, folder):
        pass
    assert not folder.parent.exists()


def test_a_full_volume_does_not_hide_why_it_failed(step, capsys):
    places, folder = step
    folder.parent.parent.parent.mkdir(exist_ok=True)
    folder.parent.parent.write_text("a file where the folder should be")
    with pytest.raises(ValueError, match="mean is darker"), failures.kept(places, folder):
        raise ValueError("mean is darker")
    assert "could not be kept" in capsys.readouterr().err


def test_the_volume_keeps_the_last_runs_alone(step):
    places, folder = step
    for number in range(failures.KEPT_RUNS + 5):
        other = folder.parent.parent / f"old-{number}" / "anomaly-gate"
        with pytest.raises(ValueError, match="again"), failures.kept(places, other):
            raise ValueError("again")
    with pytest.raises(ValueError, match="now"), failures.kept(places, folder):
        raise ValueError("now")
    assert len(list(folder.parent.parent.iterdir())) == failures.KEPT_RUNS
    assert (folder / failures.REASON_FILE).exists()


@pytest.mark.parametrize(("where", "addresses"), [("", [f"{ROOT}/report"]), ("/v", []), ("/v", ["/report"])])
def test_without_a_volume_or_an_address_the_log_alone_has_them(where, addresses, step, capsys):
    places, _ = step
    assert failures.step_folder(where, addresses) is None
    with pytest.raises(ValueError, match="x"), failures.kept(places, None):
        raise ValueError("x")
    assert "darker" in capsys.readouterr().err


def test_the_folder_is_on_the_volume():
    assert KubeflowConfig().folder("failures") == "/mnt/byol/failures"
