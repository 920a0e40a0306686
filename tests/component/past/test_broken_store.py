"""Every command with a root whose metadata.sqlite is locked, cut short, emptied or none: one line, status 2."""

import contextlib
import pathlib
import sqlite3
import types

import ml_metadata as mlmd
import pytest
import tensorboard
from ml_metadata.proto import metadata_store_pb2 as proto
from typer.testing import CliRunner

from kubeflow import commands as kubeflow_commands
from pipeline import cli, store_file
from pipeline.past import store_graph
from pipeline.root import Root
from tests.component import every_command

# What works without the store, whatever is wrong with it: what is served is served and can be rolled back.
STORELESS = {
    *(
        "versions",
        "rollback",
        "approve",
        "reject",
        "hooks",
        "serve",
        "embed",
        "search",
        "schedule",
        "tensorboard",
    ),
    "lineage",  # of a root without a version: it looks at that first
    "kubeflow retrain",  # the store is the cluster's
}


def _cut(database: pathlib.Path) -> None:
    database.write_bytes(database.read_bytes()[:20_000])


def _zeros_inside(database: pathlib.Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096:40_960] = bytes(36_864)
    database.write_bytes(bytes(content))


FAULTS = {
    "cut short": (_cut, "damaged"),
    "zeros inside": (_zeros_inside, "damaged"),
    "emptied": (lambda database: database.write_bytes(b""), "is empty"),
    "a text": (lambda database: database.write_text("no database" * 99), "damaged"),
    "a folder": (lambda database: (database.unlink(), database.mkdir()), "no file"),
    "another database": (
        lambda database: (database.unlink(), sqlite3.connect(database).executescript("CREATE TABLE a (b)")),
        "no database of ML Metadata",
    ),
}


@pytest.fixture
def root(tmp_path: pathlib.Path) -> Root:
    """A root with a store, a report and nothing else; and the data of one span beside it."""
    place = Root(tmp_path / "root")
    place.prepare()
    config = proto.ConnectionConfig()
    config.sqlite.filename_uri = str(place.metadata)
    config.sqlite.connection_mode = proto.SqliteMetadataSourceConfig.READWRITE_OPENCREATE
    mlmd.MetadataStore(config).put_artifact_type(proto.ArtifactType(name="Model"))
    place.artifacts.mkdir()
    place.latest_summary.parent.mkdir()
    place.summary("2026").parent.mkdir(parents=True)
    for summary in (place.latest_summary, place.summary("2026")):
        summary.write_text('{"run_id": "2026"}')
    for name in ("span-1", "test"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "_SUCCESS").touch()
    return place


def _says(words: tuple[str, ...], root: Root) -> str:
    """Runs the command, which must end as commands end, and returns what it said."""
    result = CliRunner().invoke(cli.app, every_command.arguments(words, root.path))
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    if " ".join(words) not in STORELESS:
        assert result.exit_code == 2, result.output
    return result.output


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_file, "WAIT_SECONDS", 0.1)

    def become(*_: object) -> None:
        raise SystemExit(0)

    monkeypatch.setattr("os.execv", become)  # another program, which opens no store

    class Board:
        def configure(self, **_: object) -> None:
            pass

        def launch(self) -> None:
            raise KeyboardInterrupt  # it has looked at the store, and would serve until then

    board = types.SimpleNamespace(TensorBoard=Board, TensorBoardServerException=ValueError)
    monkeypatch.setattr(tensorboard, "program", board)


def test_the_parser_knows_the_commands_with_a_root() -> None:
    names = {words[0] for words in every_command.WITH_ROOT}
    assert {"run", "retrain", "history", "lineage", "prune", "dashboard", "report", "versions"} <= names
    assert kubeflow_commands.app in [group.typer_instance for group in cli.app.registered_groups]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        pytest.param(words, fault, id=f"{' '.join(words)}, {fault}")
        for words in every_command.WITH_ROOT
        for fault in (("emptied",) if " ".join(words) in STORELESS else FAULTS)
    ],
)
def test_a_broken_store_is_one_line_with_the_way_out(root: Root, words: tuple[str, ...], fault: str) -> None:
    spoil, told = FAULTS[fault]
    spoil(root.metadata)
    said = _says(words, root)
    if " ".join(words) not in STORELESS:
        assert said.count("\n") == 1
        assert str(root.metadata) in said
        assert told in said
        assert "--root" in said


@pytest.mark.parametrize("words", every_command.WITH_ROOT, ids=" ".join)
def test_a_locked_store_is_one_line_and_not_a_wait_without_end(root: Root, words: tuple[str, ...]) -> None:
    with contextlib.closing(sqlite3.connect(root.metadata)) as other:
        other.execute("BEGIN EXCLUSIVE")
        said = _says(words, root)
    if " ".join(words) not in STORELESS:
        assert "is locked by another program" in said
        assert f"fuser {root.metadata}" in said


def test_a_first_run_that_was_cut_off_before_it_wrote_leaves_a_root_to_begin_in(root: Root) -> None:
    root.metadata.write_bytes(b"")
    root.artifacts.rmdir()
    root.check()
    with pytest.raises(ValueError, match="no run has written"):
        store_graph.open_store(root.metadata, writable=False)


def test_a_journal_that_a_killed_writer_left_is_played_back(root: Root, tmp_path: pathlib.Path) -> None:
    before = root.metadata.read_bytes()
    with contextlib.closing(sqlite3.connect(root.metadata, isolation_level=None)) as writer:
        writer.execute("PRAGMA cache_size = 1")  # so that pages go to the file before the end
        writer.execute("BEGIN")
        for number in range(2000):
            writer.execute(
                "INSERT INTO Artifact (type_id, uri, create_time_since_epoch, last_update_time_since_epoch) "
                "VALUES (1, ?, 0, 0)",
                (f"{number}" * 50,),
            )
        spoilt, journal = root.metadata.read_bytes(), root.metadata.with_name("metadata.sqlite-journal")
        left = journal.read_bytes()
    assert spoilt != before
    root.metadata.write_bytes(spoilt)
    journal.write_bytes(left)
    assert store_graph.StoreGraph(root.metadata).artifacts == {}
    assert not journal.exists()
