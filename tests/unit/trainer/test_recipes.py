import dataclasses
import json

import numpy as np
import pytest

from pipeline.config import PRESETS
from tests.unit.trainer.conftest import TINY
from trainer import settings
from trainer.byol import recipes
from trainer.byol.config import PretrainingConfig, ViewConfig
from trainer.byol.lars import LARS
from trainer.byol.pretraining import PretrainingImages, build_model

SMALL = ViewConfig(size=16)


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_a_recipe_builds_and_survives_a_settings_file(name):
    recipe = recipes.RECIPES[name]
    plain = json.loads(json.dumps(dataclasses.asdict(recipe.pretraining)))
    assert settings.from_dict(PretrainingConfig, plain) == recipe.pretraining
    # As many images as the source has, without their memory; the head alone is of full size.
    images = np.broadcast_to(np.uint8(0), (recipe.images, 32, 32, 3))
    data = PretrainingImages(images, np.full(3, 0.5), np.full(3, 0.25))
    model = build_model(recipe.pretraining, TINY, data)
    assert model.total_steps == recipe.total_steps
    assert model.online_projector.output_shape[-1] == recipe.pretraining.head.output_dim
    assert model.predictor.get_layer("hidden").units == recipe.pretraining.head.hidden_dim


@pytest.mark.parametrize("name", list(recipes.RECIPES))
def test_a_recipe_says_where_it_comes_from_and_what_is_expected(name):
    recipe = recipes.RECIPES[name]
    assert "/" in recipe.source
    assert "%" in recipe.published
    assert "ResNet-" in recipe.published
    assert "hours" in recipe.hours
    assert len(recipe.differences) >= 3


@pytest.mark.parametrize(
    ("recipe", "steps", "warmup", "peak"),
    [
        (recipes.PAPER, 312_000, 3_120, 3.2),
        (recipes.SOLO_LEARN_CIFAR10, 195_000, 1_950, 1.0),
        (recipes.GARDER14, 19_400, 0, 1e-3),
    ],
)
def test_steps_and_peak_rates_are_those_of_the_sources(recipe, steps, warmup, peak):
    config = recipe.pretraining
    assert recipe.total_steps == steps
    assert config.optimizer.warmup_steps == warmup
    assert config.optimizer.base_learning_rate * config.batch_size / 256 == pytest.approx(peak)


def test_the_lars_recipes_train_by_lars(make_model):
    for recipe, eta, clip in ((recipes.PAPER, 1e-3, False), (recipes.SOLO_LEARN_CIFAR10, 0.02, True)):
        optimizer = make_model(
            optimizer=dataclasses.replace(recipe.pretraining.optimizer, warmup_steps=0)
        ).optimizer
        assert isinstance(optimizer, LARS)
        assert (optimizer.eta, optimizer.clip_trust, optimizer.momentum) == (eta, clip, 0.9)
        assert optimizer.decay == recipe.pretraining.optimizer.weight_decay


def test_the_gpu_presets_sgd_is_lightlys_on_a_loss_four_times_as_large():
    """w for 600 updates at the peak rate, by PyTorch's coupled decay and by ours; a tenth of the decay is far off."""
    config = PRESETS["gpu"].pretraining
    rate = config.optimizer.base_learning_rate * config.batch_size / 256
    lightly_rate, momentum = 0.06 * config.batch_size / 128, 0.9
    curvature = np.array([0.0, 1e-3, 1e-2])  # of lightly's loss, whose minimum is at 1
    theirs, slot = np.full(3, 2.0), np.zeros(3)
    ours, own_slot = np.full(3, 2.0), np.zeros(3)
    for _ in range(600):
        slot = momentum * slot + curvature * (theirs - 1.0) + 5e-4 * theirs
        theirs = theirs - lightly_rate * slot
        gradient = 4.0 * curvature * (ours - 1.0)
        ours = ours * (1.0 - rate * config.optimizer.weight_decay)
        own_slot = momentum * own_slot - rate * gradient
        ours = ours + own_slot
    np.testing.assert_allclose(ours, theirs, rtol=0.02)
    assert theirs[0] < 1.1  # half of it is decayed away
