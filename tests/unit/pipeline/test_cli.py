"""Bad arguments and bad input: one clear line and exit status 2, before TensorFlow or TFX is imported."""

import json
import os
import pathlib
import pickle
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from components.data import cifar10, dataset
from components.data.dataset import DataSet
from components.serving import serving_folder
from pipeline import cli, console
from pipeline.config import PRESETS, chosen_preset
from pipeline.retrain import commands as retrain_commands
from pipeline.retrain.options import Options as RetrainOptions

PROJECT = pathlib.Path(__file__).resolve().parents[3]
FEW = [
    *["--set", "gate.minimum_test_images=20", "--set", "gate.robustness_images=20"],
    *["--set", "pretraining.batch_size=10"],
]


@pytest.fixture
def records(tmp_path):
    """A folder with 40 training and 20 test images."""
    folder = tmp_path / "records"
    folder.mkdir()
    rng = np.random.default_rng(3)
    for name, count in (("data_batch_1.bin", 40), ("test_batch.bin", 20)):
        images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
        (folder / name).write_bytes(cifar10.encode_records(images, np.arange(count) % 10))
    return folder


def _run(tmp_path, *arguments: str, preset: str = "demo", root: pathlib.Path | None = None):
    return CliRunner().invoke(
        cli.app, ["run", "--preset", preset, "--root", str(root or tmp_path / "root"), *arguments]
    )


def _said(result) -> str:
    return " ".join(result.output.split())


@pytest.mark.parametrize(
    ("assignment", "expected"),
    [
        ("pretraining.epoch=3", "Did you mean 'pretraining.epochs'?"),
        ("pretraining.epochs=many", "pretraining.epochs must be int; received 'many'."),
        ("pretraining.epochs=0", "at least 1 epoch"),
        ("pretraining.epochs", "A setting is written name=value"),
        ("pretraining.view_1.flip=1.5", "flip is a probability, 0 to 1; received 1.5."),
        ("pretraining.optimizer.name=adagrad", "received 'adagrad'"),
        ("gate.minimum_accuracy=50", "gate.minimum_accuracy is a share, 0 to 1; received 50.0."),
        ("encoder.widths=(8,16)", "as many block counts as widths"),
        ("keep_versions=True", "keep_versions must be int; received True."),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, assignment, expected):
    result = _run(tmp_path, "--set", assignment)
    assert result.exit_code == 2
    assert expected in _said(result)


def test_an_unknown_preset_is_named_with_the_known_ones(tmp_path):
    result = _run(tmp_path, preset="huge")
    assert result.exit_code == 2
    for known in PRESETS:
        assert known in _said(result)


def test_a_preset_on_real_data_needs_a_folder(tmp_path):
    result = _run(tmp_path, preset="cpu")
    assert result.exit_code == 2
    assert "The preset cpu needs --data" in _said(result)


def test_too_few_test_images_for_the_gate(tmp_path, records):
    result = _run(tmp_path, "--data", str(records))
    assert result.exit_code == 2
    assert "The gate needs 2000 test images" in _said(result)


def test_a_training_that_ends_in_its_warm_up(tmp_path, records):
    result = _run(tmp_path, "--data", str(records), *FEW)
    assert result.exit_code == 2
    assert "ends inside its warm-up" in _said(result)


@pytest.mark.parametrize(
    ("name", "damage", "expected"),
    [
        ("data_batch_1.bin", lambda data: data[:-1], "3073"),
        ("data_batch_1.bin", lambda data: data + b"x", "3073"),
        ("data_batch_1.bin", lambda data: b"", "empty"),
        ("data_batch_1.bin", lambda data: data[: 3073 * 7] + b"\x0a" + data[3073 * 7 + 1 :], "label"),
        ("test_batch.bin", lambda data: pickle.dumps({"data": [1, 2, 3]}), "pickle"),
        ("test_batch.bin", lambda data: None, "test_batch"),
    ],
    ids=["truncated", "oversized", "empty", "label above 9", "pickled", "missing"],
)
def test_a_bad_record_file_is_named(tmp_path, records, name, damage, expected):
    path = records / name
    damaged = damage(path.read_bytes())
    if damaged is None:
        path.unlink()
    else:
        path.write_bytes(damaged)
    result = _run(tmp_path, "--data", str(records), *FEW)
    assert result.exit_code == 2, result.output
    assert expected in _said(result)
    assert name in result.output.replace("\n", "") or damaged is None


@pytest.mark.parametrize(
    ("folders", "arguments", "expected"),
    [
        (["span-1", "span-2"], ["--span", "3"], "has no span-3. Spans there: 1, 2."),
        ([], ["--span", "3"], "has no span-3. Spans there: none."),
        (["span-07"], [], "Expected span-N with a number without leading zeros"),
        (["span-x"], [], "rename it"),
        (["span-1", "span-10"], [], "span-10 has no train file"),
    ],
)
def test_a_span_that_is_not_there_is_named(tmp_path, folders, arguments, expected):
    (tmp_path / "spans").mkdir()
    for name in folders:
        (tmp_path / "spans" / name).mkdir()
    result = _run(tmp_path, "--data", str(tmp_path / "spans"), *arguments)
    assert result.exit_code == 2
    assert expected in _said(result)


def test_a_missing_folder_is_named(tmp_path):
    result = _run(tmp_path, "--data", str(tmp_path / "nowhere"))
    assert result.exit_code == 2
    assert "nowhere" in result.output.replace("\n", "")


def test_a_root_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    result = _run(tmp_path, root=tmp_path / "file" / "root")
    assert result.exit_code == 2
    assert "Cannot write to" in _said(result)
    assert "Choose another --root." in _said(result)


@pytest.fixture
def read_only(tmp_path):
    """A folder that cannot be written: by its mode, or for root by its mount."""
    folder = tmp_path / "read_only"
    folder.mkdir()
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield folder
        folder.chmod(0o755)
        return
    mount = ["mount", "-t", "tmpfs", "-o", "ro,size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("root can write anywhere, and this root may not mount a read-only file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_root_without_write_permission(tmp_path, read_only):
    result = _run(tmp_path, root=read_only / "root")
    assert result.exit_code == 2
    assert "Cannot write to" in _said(result)
    assert "Choose another --root." in _said(result)
    assert list(read_only.iterdir()) == []


def test_a_root_in_use_is_left_alone(tmp_path, records):
    from pipeline.root import Root

    root = Root(tmp_path / "root")
    root.prepare()
    with root.locked():
        result = _run(tmp_path, "--data", str(records), *FEW)
    assert result.exit_code == 2
    assert "Another run" in _said(result)


def test_bad_arguments_are_told_before_anything_heavy_is_imported(tmp_path):
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from pipeline import cli\n"
        f"r = CliRunner().invoke(cli.app, ['run', '--preset', 'cpu', '--root', {str(tmp_path)!r}, '--data', '/none'])\n"
        "heavy = {'tensorflow', 'keras', 'tfx', 'apache_beam', 'jax'} & set(sys.modules)\n"
        "sys.exit(f'{r.exit_code} {heavy}' if r.exit_code != 2 or heavy else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_settings_lists_what_set_takes():
    result = CliRunner().invoke(cli.app, ["settings", "--preset", "cpu"])
    assert result.exit_code == 0
    assert f"pretraining.epochs={PRESETS['cpu'].pretraining.epochs}" in result.output


def test_settings_are_those_for_a_data_sets_pictures(tmp_path):
    (tmp_path / "span-3").mkdir()
    described = DataSet("fabrics", "", ("silk", "wool"), 96, 128)
    (tmp_path / "span-3" / dataset.FILE).write_text(described.to_json())
    result = CliRunner().invoke(cli.app, ["settings", "--preset", "cpu", "--data", str(tmp_path)])
    assert {"encoder.stem_stride=4", "pretraining.view_1.size=72"} <= set(result.output.split())
    request, _ = retrain_commands.asked(tmp_path, tmp_path, tmp_path / "root", "cpu", RetrainOptions())
    assert request.config == chosen_preset("cpu", [], 96)
    (tmp_path / "span-3" / dataset.FILE).write_text("{")
    result = CliRunner().invoke(cli.app, ["settings", "--preset", "cpu", "--data", str(tmp_path)])
    assert (result.exit_code, "describes no data set" in _said(result)) == (2, True)


def test_rollback_without_versions_says_so(tmp_path):
    result = CliRunner().invoke(cli.app, ["rollback", "--root", str(tmp_path)])
    assert result.exit_code == 2
    assert "nothing to roll back" in _said(result)


def test_versions_say_what_to_roll_back_to(tmp_path):
    for number, accuracy in ((1, 0.91), (2, 0.87)):
        model = tmp_path / f"model-{number}"
        model.mkdir()
        (model / "saved_model.pb").write_text(str(number))
        lineage = {"metrics": {"sparse_categorical_accuracy": accuracy}}
        serving_folder.publish(model, tmp_path / "serving", lineage)
    first, _ = serving_folder.versions(tmp_path / "serving")
    said = CliRunner().invoke(cli.app, ["rollback", "--root", str(tmp_path)]).output
    assert f"Restored the model of version {first.number}: it is served as version " in said
    result = CliRunner().invoke(cli.app, ["versions", "--root", str(tmp_path)])
    rows = [line for line in result.output.splitlines() if line.startswith("│")]
    assert ["91.00%" in row for row in rows] == [True, False, True]
    assert [" yes " in row for row in rows] == [False, False, True]
    assert [row.count(str(first.number)) for row in rows] == [
        2,
        0,
        1,
    ]  # the last one holds the first one's model


def test_versions_and_settings_for_programs(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"model")
    pushed = serving_folder.publish(
        tmp_path / "model", tmp_path / "serving", {"metrics": {"sparse_categorical_accuracy": 0.75}}
    )
    (told,) = json.loads(CliRunner().invoke(cli.app, ["versions", "--root", str(tmp_path), "--json"]).output)
    assert (told["version"], told["served"], told["accuracy"]) == (pushed.version, True, 0.75)
    values = json.loads(CliRunner().invoke(cli.app, ["settings", "--preset", "cpu", "--json"]).output)
    assert values["gate.minimum_accuracy"] == PRESETS["cpu"].gate.minimum_accuracy


def test_a_piped_table_breaks_no_number(tmp_path, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"model")
    pushed = serving_folder.publish(tmp_path / "model", tmp_path / "serving", {})
    lines = CliRunner().invoke(cli.app, ["versions", "--root", str(tmp_path)]).output.splitlines()
    assert sum(str(pushed.version) in line and pushed.digest[7:17] in line for line in lines) == 1


@pytest.mark.parametrize("arguments", [["-h"], ["run", "-h"], ["data", "-h"]])
def test_help_by_one_letter(arguments):
    result = CliRunner().invoke(cli.app, arguments)
    assert (result.exit_code, "Usage:" in result.output) == (0, True)


def test_the_version_and_completion_for_a_shell():
    result = CliRunner().invoke(cli.app, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "byol-tfx")
    assert "--install-completion" in CliRunner().invoke(cli.app, ["--help"]).output


def test_quiet_leaves_out_progress_and_nothing_else(tmp_path, capfd):
    try:
        console.show_progress(False)
        with console.quiet(tmp_path / "log") as person:
            person.print("Pretrainer")
        assert "Pretrainer" not in capfd.readouterr().out
    finally:
        console.show_progress(True)
    with console.quiet(tmp_path / "log") as person:
        person.print("Pretrainer")
    assert "Pretrainer" in capfd.readouterr().out


def test_versions_without_any_or_with_a_broken_record_say_so(tmp_path):
    nothing = CliRunner().invoke(cli.app, ["versions", "--root", str(tmp_path)])
    assert nothing.exit_code == 2
    assert "is the root of no run" in nothing.output.replace("\n", " ")
    (tmp_path / "metadata.sqlite").touch()
    result = CliRunner().invoke(cli.app, ["versions", "--root", str(tmp_path)])
    assert result.exit_code == 0
    assert "No version has been pushed to" in result.output.replace("\n", " ")
    (tmp_path / "serving" / "7").mkdir(parents=True)
    (tmp_path / "serving" / "7" / "serving.json").write_text("{")
    result = CliRunner().invoke(cli.app, ["versions", "--root", str(tmp_path)])
    assert result.exit_code == 0
    assert "Version 7: Expected the record of a push in" in result.output
    assert "Remove or repair it." in result.output
