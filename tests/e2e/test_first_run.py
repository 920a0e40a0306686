"""From records to a pushed encoder with the real command: what is served is what was measured."""

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from components.data import cifar10, synthetic
from tests.e2e import byol_command

pytestmark = pytest.mark.timeout(900)  # the first test that asks for it waits for the first run

SUMMARY_KEYS = {
    "run_id",
    "preset",
    "data",
    "linear_accuracy",
    "random_encoder_linear_accuracy",
    "knn_accuracy",
    "blessed",
    "pushed_version",
    "pushed_path",
    "seconds",
    "components",
}


@pytest.fixture(scope="module")
def answers(first_run, small_data, tmp_path_factory):
    """What the pushed model says in a clean process that has TensorFlow and nothing of ours."""
    assert first_run.process.returncode == 0, first_run.process.stdout + first_run.process.stderr
    pushed = byol_command.summary(first_run.root)["pushed_path"]
    reference = next(first_run.root.glob("tfx/LinearProbe/model_run/*/serving_reference.npz"))
    out = tmp_path_factory.mktemp("answers") / "answers.npz"
    subprocess.run(
        [
            *[sys.executable, "-I", str(pathlib.Path(__file__).with_name("clean_process.py"))],
            *[pushed, str(small_data / "span-3" / "test_batch.bin"), str(reference), str(out)],
        ],
        check=True,
        timeout=300,
        capture_output=True,
    )
    return np.load(out), np.load(reference)


def test_the_command_says_what_it_did(first_run):
    said = first_run.process.stdout
    assert first_run.process.returncode == 0, said + first_run.process.stderr
    assert "epoch 4/4" in said
    assert "images/s" in said
    assert "linear probe, test split (TFMA)" in said
    assert "Traceback" not in said + first_run.process.stderr


def test_the_summary_has_every_key_and_plausible_numbers(first_run):
    summary = byol_command.summary(first_run.root)
    assert set(summary) >= SUMMARY_KEYS
    assert summary["blessed"] is True
    assert summary["preset"] == "demo"
    assert pathlib.Path(summary["data"]).name == "span-3"
    assert pathlib.Path(summary["pushed_path"]).name == str(summary["pushed_version"])
    assert {"Cifar10ExampleGen", "Pretrainer", "LinearProbe", "Evaluator", "Pusher"} <= set(
        summary["components"]
    )
    assert 0 < sum(summary["components"].values()) <= summary["seconds"]
    runs = list((first_run.root / "runs").glob("*/summary.json"))
    assert [json.loads(path.read_text()) for path in runs] == [summary]


def test_served_accuracy_equals_tfmas_over_every_test_row(first_run, answers):
    served, _ = answers
    summary = byol_command.summary(first_run.root)
    assert len(served["labels"]) == byol_command.TEST_IMAGES
    accuracy = np.mean(served["probabilities"].argmax(1) == served["labels"])
    assert accuracy == pytest.approx(summary["linear_accuracy"], abs=1e-6)
    assert accuracy != summary["random_encoder_linear_accuracy"]


def test_the_pushed_model_serves_every_signature(answers):
    served, _ = answers
    assert list(served["signatures"]) == ["classify", "embed_pixels", "evaluate", "serving_default"]
    assert not served["keras_imported"]
    assert served["embedding"].dtype == np.float32
    np.testing.assert_allclose(served["probabilities"].sum(1), 1.0, atol=1e-5)
    names = np.array(synthetic.DRAWN.label_names, dtype="S")
    assert list(served["label_names"]) == list(names)
    assert list(served["named"]) == list(names[served["probabilities"].argmax(1)])


def test_evaluated_rows_are_served_rows(answers):
    served, _ = answers
    np.testing.assert_allclose(served["evaluated"], served["probabilities"], atol=1e-5)


def test_a_batch_of_one_equals_a_batch_of_many_and_an_empty_one_is_empty(answers):
    served, _ = answers
    np.testing.assert_allclose(served["one_by_one"], served["embedding"][:20], rtol=1e-5, atol=1e-5)
    assert served["empty"].shape == (0, served["embedding"].shape[1])


def test_served_numbers_equal_the_trainers(answers):
    served, trainer = answers
    np.testing.assert_allclose(served["reference"], trainer["embedding"], rtol=1e-5, atol=1e-5)


def test_a_second_run_uses_the_cache_and_pushes_nothing_new(first_run, small_data):
    """Slow: another process, with another hash seed. It proves that the digests in the cache keys are stable."""
    before = byol_command.summary(first_run.root)
    process = byol_command.run(small_data, first_run.root)
    after = byol_command.summary(first_run.root)
    assert process.returncode == 0, process.stdout + process.stderr
    for node in ("Cifar10ExampleGen", "Transform", "Pretrainer", "LinearProbe", "RandomProbe"):
        assert f"{node}: from cache" in process.stdout
    assert after["pushed_version"] == before["pushed_version"]
    assert after["linear_accuracy"] == before["linear_accuracy"]
    assert after["run_id"] != before["run_id"]


def test_a_worse_model_is_not_pushed_and_every_miss_is_said(first_run, small_data):
    """Slow: one more process. The gate's other half: exit status 3, and the served version stays.

    The probe of this run learns next to nothing, so it misses the floor and loses against the blessed model by the
    paired test on the same images.
    """
    served = sorted(path.name for path in (first_run.root / "serving").iterdir() if path.name.isdigit())
    before = byol_command.summary(first_run.root)["linear_accuracy"]
    process = byol_command.run(
        small_data, first_run.root, "gate.minimum_accuracy=0.99", "probe.learning_rates=[1e-9]"
    )
    summary = byol_command.summary(first_run.root)
    assert process.returncode == 3, process.stdout + process.stderr
    assert summary["blessed"] is False
    assert summary["pushed_version"] is None
    accuracy = summary["linear_accuracy"]
    assert accuracy < before - 0.1
    said = process.stderr
    assert f"criteria were missed, the first being accuracy on all test images: {accuracy:.2%}, " in said
    assert f"{100 * (0.99 - accuracy):.2f} points short of the 99.00% that was asked." in said
    assert f"Version {summary['still_served']} is still served." in said
    change = next(miss for miss in summary["missed"] if miss["what"].startswith("change against"))
    assert (change["asked"], change["unit"]) == (-0.005, "points")
    assert change["measured"] < -0.005
    assert served == sorted(
        path.name for path in (first_run.root / "serving").iterdir() if path.name.isdigit()
    )


def test_a_new_span_unlike_the_last_stops_at_the_gate_and_the_old_one_still_runs(
    first_run, small_data, tmp_path
):
    """Slow: one more process. What the AnomalyGate compares with comes from the store, through the real pipeline."""
    served = sorted((first_run.root / "serving").iterdir())
    before = byol_command.summary(first_run.root)
    shutil.copytree(small_data / "span-3", tmp_path / "spans" / "span-3")
    darker = synthetic.write(
        tmp_path / "spans" / "span-4", train=byol_command.TRAIN_IMAGES, test=byol_command.TEST_IMAGES, seed=4
    )
    for path in darker.glob("*.bin"):
        images, labels = cifar10.read_records(path)
        path.write_bytes(cifar10.encode_records((images * 0.7).astype(np.uint8), labels))
    process = byol_command.run(tmp_path / "spans", first_run.root)
    assert process.returncode == 1, process.stdout + process.stderr
    assert "AnomalyGate failed: " in process.stderr
    assert "span 4, split train, feature brightness: mean went from" in process.stderr
    assert "in span 3 to" in process.stderr
    assert byol_command.summary(first_run.root) == before
    assert sorted((first_run.root / "serving").iterdir()) == served
