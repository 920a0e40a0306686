"""What the Pretrainer leaves in `model_run` for people: a CSV and TensorBoard's events, epoch by epoch."""

import csv

import numpy as np
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from trainer.byol import pretraining, run_fn

EPOCHS = [
    {"epoch": e, "loss": 2.0 / e, "learning_rate": 0.1 * e, "images_per_second": 700.0} for e in (1, 2, 3)
]


def test_the_csv_has_a_row_an_epoch_also_where_the_monitors_came_later(tmp_path):
    path = tmp_path / "history.csv"
    path.write_text("what a killed run left\n")
    history = [*EPOCHS, {**EPOCHS[0], "epoch": 4, "knn_accuracy": 0.25}]
    pretraining.write_history(history, path)
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [row.pop("knn_accuracy") for row in rows] == ["", "", "", "0.25"]
    assert [{n: float(v) for n, v in row.items()} for row in rows[:3]] == EPOCHS


def test_the_events_hold_every_value_at_its_epoch_before_the_training_ends(tmp_path):
    writer = tf.summary.create_file_writer(str(tmp_path))
    for values in EPOCHS:
        run_fn.write_summaries(values, writer)
    events = EventAccumulator(str(tmp_path))  # the writer is still open
    events.Reload()
    assert sorted(events.Tags()["tensors"]) == [
        "pretraining/images_per_second",
        "pretraining/learning_rate",
        "pretraining/loss",
    ]
    found = [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors("pretraining/loss")]
    assert [step for step, _ in found] == [1, 2, 3]
    np.testing.assert_allclose([value for _, value in found], [2.0, 1.0, 2 / 3], rtol=1e-6)
    writer.close()
