"""Which images reach what learns: those of the training split, by the pipeline's wiring."""

import json

from tfx import v1 as tfx

from components.data import features
from pipeline.config import PRESETS
from pipeline.pipeline import LINEAR_PROBE, PRETRAINER, RANDOM_PROBE, Locations, create_pipeline
from pipeline.run.bindings import Earlier, bindings


def test_transform_and_every_trainer_are_given_the_training_split_alone(tmp_path):
    where = Locations(
        data=str(tmp_path / "data"),
        pipeline_root=str(tmp_path / "tfx"),
        metadata=str(tmp_path / "metadata.sqlite"),
        checkpoints=str(tmp_path / "checkpoints"),
        serving=str(tmp_path / "serving"),
    )
    components = create_pipeline(PRESETS["demo"], where, [], bindings(Earlier())).components
    trainers = {n.id: n for n in components if isinstance(n, tfx.components.Trainer)}
    assert set(trainers) == {PRETRAINER, LINEAR_PROBE, RANDOM_PROBE}
    for trainer in trainers.values():
        for name in ("train_args", "eval_args"):
            assert json.loads(trainer.exec_properties[name]) == {"splits": [features.TRAIN_SPLIT]}
    (transform,) = (n for n in components if isinstance(n, tfx.components.Transform))
    splits = json.loads(transform.exec_properties["splits_config"])
    assert splits == {"analyze": [features.TRAIN_SPLIT], "transform": [features.TRAIN_SPLIT]}
