import dataclasses
import json

import numpy as np
import pytest

from benchmarks import pretrain
from pipeline.config import PRESETS
from tests.unit.trainer.conftest import TINY
from trainer import settings
from trainer.byol import recipes
from trainer.byol.config import HeadConfig, PretrainingConfig, ViewConfig
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


def test_garder14s_rate_and_tau_stay_as_they_begin(data):
    recipe = recipes.GARDER14.pretraining
    config = dataclasses.replace(
        recipe, batch_size=16, epochs=3, head=HeadConfig(16, 8), view_1=SMALL, view_2=SMALL
    )
    model = build_model(config, TINY, data)
    online, target = model.target_pairs()[0]
    for step in (0, 5, 11):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(5e-4 * 16 / 256)
        model.optimizer.iterations.assign(step + 1)
        online.assign(np.ones(online.shape))
        target.assign(np.zeros(target.shape))
        model.update_target()
        np.testing.assert_allclose(np.asarray(target), 0.01, rtol=1e-5)


def test_garder14s_recipe_is_complete_and_says_each_difference_left():
    """Numbers of its pretraining.py, augmentation.py and linearevaluation.py; what has no setting here is named."""
    recipe = recipes.GARDER14
    for view in (recipe.pretraining.view_1, recipe.pretraining.view_2):
        # 13 of 32 pixels and two thirds of it; one half flipped of the half that may be.
        assert view.minimum_area == pytest.approx(13 * 13 * 2 / 3 / 32**2, abs=1e-3)
        assert (view.flip, view.jitter, view.grey, view.blur, view.solarize) == (0.25, 0.8, 0.2, 0, 0)
        assert (view.brightness, view.contrast, view.saturation, view.hue) == (0.4, 0.4, 0.4, 0.1)
    assert (recipe.pretraining.head.hidden_dim, recipe.pretraining.head.output_dim) == (256, 128)
    assert (recipe.pretraining.base_tau, recipe.pretraining.optimizer.weight_decay) == (0.99, 0.0)
    probe = pretrain.KNOWN["garder14"].probe
    assert probe.candidates() == ((5e-2, 0.0),)
    assert (probe.epochs, probe.crops + 1, probe.batch_size) == (50, 50, 512)
    said = " ".join(recipe.differences)
    left = ("mean of all terms", "bias correction", "Glorot", "bilinearly", "moments", "epsilon", "biases")
    for word in (*left, "normalisation layer", "whole pixels", "added brightness", "crops", "standardised"):
        assert word in said
