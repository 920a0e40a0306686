"""What the environment says of several processes, and what only the first of them does."""

import dataclasses

import pytest

from tests.unit.trainer.conftest import SETTINGS
from trainer.byol import choice, processes
from trainer.byol.checkpoint import CheckpointFolder, Position
from trainer.byol.processes import Place, announced

BY_HAND = {"JAX_COORDINATOR_ADDRESS": "host:1", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, Place(0, 1)),
        (BY_HAND, Place(3, 4)),
        ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"}, Place(1, 2)),
        (
            {"SLURM_NTASKS": "8", "SLURM_PROCID": "0"},
            Place(0, 1),
        ),  # an allocation that nothing was started on
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}, Place(0, 2)),
        ({"TPU_WORKER_HOSTNAMES": "a,b,c,d", "TPU_WORKER_ID": "2"}, Place(2, 4)),
        ({"TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}, Place(0, 1)),
    ],
)
def test_a_process_knows_its_place_from_what_clusters_set(environment, place):
    assert announced(environment) == place


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"JAX_PROCESS_ID": ""}, r"^JAX_NUM_PROCESSES=4 needs JAX_PROCESS_ID, from 0 .*; received none"),
        ({"JAX_PROCESS_ID": "4"}, "received 4"),
        ({"JAX_NUM_PROCESSES": "many"}, "^JAX_NUM_PROCESSES=many"),
        ({"JAX_COORDINATOR_ADDRESS": ""}, r"needs JAX_COORDINATOR_ADDRESS=HOST:PORT.*received none"),
    ],
)
def test_half_an_announcement_is_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        announced(BY_HAND | changes)


@pytest.mark.parametrize(
    ("number", "changes", "words"),
    [
        ("1", {"engine": "jax", "devices": 0}, r"process 1 of 4; a run is the first one's.*jax_process"),
        (
            "0",
            {"engine": "jax", "devices": 1},
            r"devices=1\. Give pretraining.engine=jax and pretraining.devices=0",
        ),
        ("0", {"engine": "tensorflow", "devices": 0}, "received pretraining.engine=tensorflow"),
    ],
)
def test_a_run_that_several_processes_cannot_make_is_refused_before_it_starts(
    monkeypatch, number, changes, words
):
    for name, value in (BY_HAND | {"JAX_PROCESS_ID": number}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(choice, "installed", lambda: True)
    with pytest.raises(ValueError, match=words):
        choice.check(dataclasses.replace(SETTINGS, **changes))


def test_only_the_first_writes_checkpoints(monkeypatch, shared_model, tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints", "identity")
    monkeypatch.setattr(processes, "is_first", lambda: False)
    folder.save(shared_model, Position(1, 0), [])
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr(processes, "is_first", lambda: True)
    folder.save(shared_model, Position(1, 0), [])
    assert len(folder.paths()) == 1


def test_alone_a_process_is_the_first_and_asks_itself():
    assert processes.is_first()
    assert processes.of_first(lambda: b"job") == b"job"
