"""The study of six fabrics: what it draws, and that its settings are those of a fair comparison."""

import numpy as np
import pytest

from benchmarks import fabrics
from components.data.picture_folders import find
from components.data.pictures import read_picture
from pipeline.config import chosen_preset


def test_the_kinds_differ_in_how_their_threads_cross():
    warp, weft = np.mgrid[:60, :60]
    on_top = {kind: fabrics.crossings(kind, warp, weft) for kind in fabrics.KINDS}
    shares = {kind: round(float(rows.mean()), 2) for kind, rows in on_top.items()}
    assert shares == {"basket": 0.5, "herringbone": 0.5, "plain": 0.5, "rib": 0.5, "satin": 0.8, "twill": 0.5}
    # Plain changes at each thread, rib and basket at each second one along one axis or along both.
    changes = {
        kind: (np.diff(rows, axis=0).mean(), np.diff(rows, axis=1).mean()) for kind, rows in on_top.items()
    }
    assert changes["plain"] == (1.0, 1.0)
    assert changes["rib"] == pytest.approx((0.5, 1.0), abs=0.01)
    assert changes["basket"] == pytest.approx((0.5, 0.5), abs=0.01)
    with pytest.raises(ValueError, match=r"Expected one of basket, .*; received 'felt'"):
        fabrics.crossings("felt", warp, weft)


def test_both_sets_have_the_same_labelled_pictures_in_every_format(tmp_path, monkeypatch):
    for name, count in (("LABELLED", 42), ("UNLABELLED", 30), ("TEST", 12)):
        monkeypatch.setattr(fabrics, name, count)
    fabrics.write(tmp_path)
    found = {name: find(tmp_path / name) for name in ("all", "labelled")}
    labelled = {(file.path.name, file.label, file.split) for file in found["all"] if file.label}
    assert labelled == {(file.path.name, file.label, file.split) for file in found["labelled"]}
    assert [sum(file.split == split for file in found["labelled"]) for split in ("train", "test")] == [42, 12]
    assert sum(file.label is None for file in found["all"]) == 30
    assert len({file.path.suffix for file in found["all"]}) == 7
    assert {read_picture(file.path, 96, 96).shape for file in found["all"]} == {(96, 96, 3)}


def test_either_run_has_as_many_updates():
    steps = []
    for pictures in (fabrics.LABELLED, fabrics.LABELLED + fabrics.UNLABELLED):
        config = chosen_preset("demo", fabrics.settings(pictures, seed=3), fabrics.SIDE)
        steps.append(config.pretraining.total_steps(pictures))
        assert config.pretraining.seed == 3
    assert steps == pytest.approx([fabrics.UPDATES] * 2, rel=0.02)


def test_the_table_has_the_means():
    outcomes = [
        fabrics.Outcome(a, 0.2, pushed, 60.0)
        for a, pushed in ((0.8, True), (0.5, False), (0.6, True), (0.6, True))
    ]
    rows = fabrics.table({0: (outcomes[0], outcomes[1]), 1: (outcomes[2], outcomes[3])}).splitlines()
    assert rows[2] == "| 0 | 80.0% | 50.0% | 20.0% | first | 60 and 60 |"
    assert rows[4] == "| mean | 70.0% | 55.0% | 20.0% | | |"
