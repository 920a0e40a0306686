"""The data components on Beam engines other than the default: two processes, and the portable protocol."""

import subprocess
import sys

import pytest

from components import features
from tests.component import data_plane

_TWO_PROCESSES = [
    *data_plane.IN_MEMORY,
    "--direct_running_mode=multi_processing",
    "--direct_num_workers=2",
]


@pytest.fixture
def job_server():
    """The address of Beam's own Python job server, in another process: the protocol Flink and Spark speak."""
    command = [sys.executable, "-m", "tests.component.job_server"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        yield server.stdout.readline().strip()
        server.terminate()


def _check(root, splits):
    examples = data_plane.artifact(root, "Cifar10ExampleGen", "examples")
    transformed = data_plane.artifact(root, "Transform", "transformed_examples")
    for name, (images, _) in zip(("train", "test"), splits, strict=True):
        expected = sorted(features.content_hashes(images))
        for folder in (examples, transformed):
            rows = data_plane.read_examples(folder / f"Split-{name}")
            assert sorted(row[features.CONTENT_HASH] for row in rows) == expected


@pytest.mark.parametrize("engine", ["two processes", "job server"])
def test_no_row_is_lost(engine, request, tmp_path):
    splits = data_plane.demo_images(4)
    data_plane.write_folder(tmp_path / "data", *splits)
    beam_args = _TWO_PROCESSES
    if engine == "job server":
        address = request.getfixturevalue("job_server")
        beam_args = ["--runner=PortableRunner", f"--job_endpoint={address}", "--environment_type=LOOPBACK"]
    data_plane.run(tmp_path / "root", data_plane.data_nodes(tmp_path / "data"), beam_args)
    _check(tmp_path / "root", splits)
