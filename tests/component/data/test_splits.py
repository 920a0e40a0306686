"""Which images reach what learns: those of the training split, by the pipeline's wiring."""

import json

from tfx import v1 as tfx

from components.data import features
from components.data.dataset import DataSet
from pipeline.config import PRESETS
from pipeline.pipeline import LINEAR_PROBE, PRETRAINER, RANDOM_PROBE, Locations, create_pipeline
from pipeline.run.bindings import Earlier, bindings


def _locations(tmp_path, **values):
    return Locations(
        data=str(tmp_path / "data"),
        pipeline_root=str(tmp_path / "tfx"),
        metadata=str(tmp_path / "metadata.sqlite"),
        checkpoints=str(tmp_path / "checkpoints"),
        serving=str(tmp_path / "serving"),
        **values,
    )


def test_transform_and_every_trainer_are_given_the_training_split_alone(tmp_path):
    where = _locations(tmp_path)
    components = create_pipeline(PRESETS["demo"], where, [], bindings(Earlier())).components
    trainers = {n.id: n for n in components if isinstance(n, tfx.components.Trainer)}
    assert set(trainers) == {PRETRAINER, LINEAR_PROBE, RANDOM_PROBE}
    for trainer in trainers.values():
        for name in ("train_args", "eval_args"):
            assert json.loads(trainer.exec_properties[name]) == {"splits": [features.TRAIN_SPLIT]}
    (transform,) = (n for n in components if isinstance(n, tfx.components.Transform))
    splits = json.loads(transform.exec_properties["splits_config"])
    assert splits == {"analyze": [features.TRAIN_SPLIT], "transform": [features.TRAIN_SPLIT]}


def test_without_labels_nothing_is_evaluated(tmp_path):
    where = _locations(tmp_path, data_set=DataSet("photos", "", (), 32, 32, unlabelled=True))
    nodes = {n.id: n for n in create_pipeline(PRESETS["demo"], where, [], bindings(Earlier())).components}
    assert not [name for name in nodes if "Evaluator" in name or name in (RANDOM_PROBE, "Robustness")]
    assert set(nodes["Verdict"].inputs) == {"model", "infra_blessing"}
    assert "evaluation" not in nodes["Pusher"].inputs
    assert json.loads(nodes["Pusher"].exec_properties["custom_config"])["lineage"]["judged"] is False


def test_a_span_whose_own_test_images_lack_labels_is_not_evaluated_by_itself(tmp_path):
    def names(**values):
        where = _locations(tmp_path, test=str(tmp_path / "test"), **values)
        return {n.id for n in create_pipeline(PRESETS["demo"], where, [], bindings(Earlier())).components}

    assert names() - names(newest_labelled=False) == {"NewestEvaluator"}
