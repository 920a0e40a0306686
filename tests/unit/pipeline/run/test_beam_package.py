"""What TFX packs for Beam's workers is packed once, and nothing of it is left, neither in the root nor elsewhere."""

import pathlib
import tempfile

import pytest
from tfx.utils import dependency_utils

from pipeline.beam import beam_args
from pipeline.config import BeamConfig
from pipeline.run import beam_package


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[pathlib.Path]:
    """Every package that was built; a small file, made where TFX makes its own."""
    packages: list[pathlib.Path] = []

    def build() -> str:
        packages.append(pathlib.Path(tempfile.mkdtemp()) / "tfx_ephemeral.tar.gz")
        packages[-1].write_bytes(b"source")
        return str(packages[-1])

    monkeypatch.setattr(dependency_utils, "build_ephemeral_package", build)
    return packages


def test_tfx_is_packed_once_a_run_and_nothing_stays(
    built: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
    folder, before = tmp_path / "root" / ".beam", tempfile.gettempdir()
    with beam_package.packed_in(folder):
        flags = [
            dependency_utils.make_beam_dependency_flags(["--direct_num_workers=1"])[-1] for _ in range(7)
        ]
        assert built[0].read_bytes() == b"source"
        assert built[0].is_relative_to(folder)
        # What TensorFlow's autograph puts there is removed at the interpreter's end, which a kill takes away.
        assert tempfile.gettempdir() == str(folder)
    assert flags == [f"--extra_package={built[0]}"] * 7
    assert len(built) == 1
    assert not folder.exists()
    assert tempfile.gettempdir() == before


@pytest.mark.parametrize(
    ("engine", "packed"), [("local", 0), ("processes", 0), ("portable", 1), ("flink", 1)]
)
def test_only_workers_elsewhere_are_sent_a_package(
    built: list[pathlib.Path], tmp_path: pathlib.Path, engine: str, packed: int
) -> None:
    arguments = beam_args(BeamConfig(engine=engine, endpoint="localhost:8099"))
    with beam_package.packed_in(tmp_path / ".beam"):
        flags = dependency_utils.make_beam_dependency_flags(arguments)
    assert len(built) == packed
    assert flags == [*arguments, *(f"--extra_package={path}" for path in built)]
    built.clear()
    dependency_utils.make_beam_dependency_flags(arguments)
    assert len(built) == 1  # TFX has its own function back


def test_what_a_killed_run_left_is_removed_by_the_next(
    built: list[pathlib.Path], tmp_path: pathlib.Path
) -> None:
    left = tmp_path / ".beam" / "tmpabc"
    left.mkdir(parents=True)
    (left / "old.tar.gz").write_bytes(b"old")
    with beam_package.packed_in(tmp_path / ".beam"):
        assert not left.exists()
    with pytest.raises(RuntimeError, match="node"), beam_package.packed_in(tmp_path / ".beam"):
        raise RuntimeError("a node failed" + dependency_utils.build_ephemeral_package())
    assert not (tmp_path / ".beam").exists()
    built.clear()
    dependency_utils.build_ephemeral_package()
    assert not built[0].is_relative_to(tmp_path / ".beam")  # TFX has its own function back
