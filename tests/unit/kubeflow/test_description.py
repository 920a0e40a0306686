"""What a pipeline is compiled for, from what a person has at hand."""

import re

import pytest
from typer.testing import CliRunner

from components.data import dataset, synthetic
from components.data.dataset import CIFAR10, DataSet
from kubeflow import commands
from kubeflow.description import described
from pipeline.config import PRESETS, fitted

FABRICS = DataSet("fabrics", "swatches", ("wool", "silk", "été"), 24, 40)


@pytest.fixture
def spans(tmp_path):
    """A local copy of the data on the volume: textures, then fabrics."""
    synthetic.write(tmp_path / "data" / "span-1", train=10, test=10)
    (tmp_path / "data" / "span-3").mkdir()
    (tmp_path / "data" / "span-3" / dataset.FILE).write_text(FABRICS.to_json())
    return tmp_path / "data"


def test_a_description_a_folder_of_records_and_one_of_spans_will_do(spans):
    assert described(spans / "span-3" / dataset.FILE, "latest") == FABRICS
    assert described(spans, "latest") == FABRICS
    assert described(spans, 1) == described(spans / "span-1", None) == synthetic.DRAWN
    assert described(spans / "span-1", 7) == synthetic.DRAWN  # a copy of one span alone


def test_what_is_not_described_is_cifar10(tmp_path):
    assert described(None, "latest") == CIFAR10
    (tmp_path / "cifar-10-batches-bin").mkdir()
    (tmp_path / "cifar-10-batches-bin" / "data_batch_1.bin").touch()
    assert described(tmp_path, None) == CIFAR10
    (tmp_path / "cifar-10-batches-bin" / dataset.NAMES_FILE).write_text("sea ice\nété\n")
    assert described(tmp_path, None).label_names == ("sea ice", "été")
    assert described(tmp_path / "cifar-10-batches-bin" / dataset.NAMES_FILE, 2).label_names == (
        "sea ice",
        "été",
    )


@pytest.mark.parametrize(
    ("name", "span", "said"),
    [
        ("nowhere", "latest", "there is no .*nowhere. Expected a dataset.json"),
        (".", "none", "holds neither records nor a description. Expected a dataset.json"),
        (".", "2", "has no span-2. Spans there: 1, 3."),
        ("span-1/test_batch.bin", "latest", "test_batch.bin describes no data set"),
    ],
)
def test_what_describes_nothing_ends_the_command_before_tfx_is_imported(spans, name, span, said):
    words = [
        "compile",
        str(spans / "byol.yaml"),
        "--preset",
        "demo",
        "--span",
        span,
        "--data-set",
        str(spans / name),
    ]
    ended = CliRunner().invoke(commands.app, words, env={"COLUMNS": "300"})
    assert ended.exit_code == 2
    assert re.search(said, " ".join(ended.output.split()))
    assert not (spans / "byol.yaml").exists()


def test_floors_must_suit_the_classes(spans):
    words = ["compile", str(spans / "byol.yaml"), "--preset", "demo", "--data-set", str(spans)]
    ended = CliRunner().invoke(commands.app, [*words, "--set", f"gate.class_floors={(0.1,) * 10}"])
    assert ended.exit_code == 2
    assert "one for each of 3 classes; received 10" in " ".join(ended.output.split())


@pytest.mark.parametrize(("size", "view"), [((24, 40), 32), ((96, 128), 96), ((64, 200), 64)])
def test_the_preset_is_fitted_to_the_pictures_as_a_local_run_s_is(tmp_path, size, view):
    described_by = tmp_path / dataset.FILE
    described_by.write_text(DataSet("fabrics", "", ("wool", "silk"), *size).to_json())
    wanted = commands._wanted(("gpu", None), (None, None), ("latest", described_by))
    assert wanted.config == fitted(PRESETS["gpu"], min(size))
    assert wanted.config.pretraining.view_1.size == view
