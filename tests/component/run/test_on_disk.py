"""TFX's runner over a disk that loses what was not synced: the same command finishes, and no more runs than must."""

import contextlib
import pathlib
import sqlite3

import pytest
from tfx.orchestration.portable import launcher

from pipeline import nodes
from pipeline.past.store_graph import StoreGraph
from pipeline.root import Root
from pipeline.run import on_disk
from tests.component import small_root
from tests.component.small_root import Plan
from tests.power_cut import Disk, Power


@pytest.fixture
def power(monkeypatch: pytest.MonkeyPatch) -> Power:
    return Power(monkeypatch)


def _states(graph: StoreGraph) -> dict[str, str]:
    return {node: execution.state for node, execution in graph.runs[-1].executions.items()}


def _complete(root: Root) -> frozenset[str]:
    """Ids of the executions that ML Metadata says are complete, as it would be read after a cut now."""
    if not root.metadata.exists():
        return frozenset()
    with contextlib.closing(sqlite3.connect(f"file:{root.metadata}?mode=ro", uri=True)) as store:
        tables = store.execute("SELECT name FROM sqlite_master WHERE name = 'Execution'").fetchall()
        rows = (
            store.execute("SELECT id FROM Execution WHERE last_known_state = 3").fetchall() if tables else []
        )
    return frozenset(str(number) for (number,) in rows)


def test_outputs_of_a_complete_node_survive_a_power_cut_at_any_moment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """Also where no name reaches the disk but by its folder's sync. An output's folder is named by its execution."""
    root, data = Root(tmp_path / "root"), tmp_path / "data"
    root.artifacts.mkdir(parents=True)
    disk = Disk(root.path, monkeypatch, lambda: _complete(root))
    with on_disk.outputs_before_complete():
        with disk.followed():
            small_root.run(root, data, Plan(span=1))
        written = {
            path.relative_to(root.path).as_posix(): path.read_bytes()
            for path in root.artifacts.glob("[!.]*/[!.]*/*/**/*")
            if path.is_file()
        }
        assert len({name.split("/")[3] for name in written}) == 8
        for moment in disk.moments:
            assert isinstance(moment.beside, frozenset)
            said = {name: content for name, content in written.items() if name.split("/")[3] in moment.beside}
            assert {name: moment.left.get(name) for name in said} == said, moment.before
        assert {len(moment.beside) for moment in disk.moments} >= {0, 4, 8}  # type: ignore[arg-type]
        assert on_disk.forget_what_a_cut_took(root) == []
        again = small_root.run(root, data, Plan(span=1))
    assert _states(again)[nodes.PRETRAINER] == "CACHED"
    sizes = [one.properties[on_disk.SIZE_PROPERTY] for one in again.artifacts.values()]
    assert '{"files": 1, "bytes": 0}' in sizes  # a blessing is a name


def test_what_an_older_cut_left_is_made_again(power: Power, tmp_path: pathlib.Path) -> None:
    root, data = Root(tmp_path / "root"), tmp_path / "data"
    small_root.run(root, data, Plan(span=1, accuracy=0.1))  # TFX as it is; refused, so that nothing is served
    lost = power.cut(root.artifacts)
    assert {path.relative_to(root.artifacts).parts[0] for path in lost} >= {nodes.EXAMPLE_GEN, "Pretrainer"}
    with on_disk.outputs_before_complete():
        rerun = on_disk.forget_what_a_cut_took(root)
        assert {nodes.EXAMPLE_GEN, "Transform", "Pretrainer", "LinearProbe"} <= set(rerun)
        again = small_root.run(root, data, Plan(span=1))
        assert set(_states(again).values()) == {"COMPLETE"}
        assert on_disk.forget_what_a_cut_took(root) == []
    for folder in (nodes.EXAMPLE_GEN, "Transform", "Pretrainer"):
        newest = max((root.artifacts / folder).rglob("content.txt"), key=lambda path: int(path.parent.name))
        assert newest.read_text().startswith("span 1")


def test_a_file_that_is_shorter_than_it_was_written_runs_its_node_again(tmp_path: pathlib.Path) -> None:
    root, data = Root(tmp_path / "root"), tmp_path / "data"
    with on_disk.outputs_before_complete():
        small_root.run(root, data, Plan(span=1))
        (report,) = (root.artifacts / "Transform" / "transformed_examples").rglob("content.txt")
        report.write_text(report.read_text()[:-1])
        assert on_disk.forget_what_a_cut_took(root) == ["Transform"]
        states = _states(small_root.run(root, data, Plan(span=1)))
    assert (states[nodes.EXAMPLE_GEN], states[nodes.TRANSFORM]) == ("CACHED", "COMPLETE")


def test_tfx_has_its_own_operators_back() -> None:
    table = launcher.DEFAULT_EXECUTOR_OPERATORS
    before = dict(table)
    with contextlib.suppress(RuntimeError), on_disk.outputs_before_complete():
        assert table != before
        raise RuntimeError("a node failed")
    assert table == before
