import dataclasses

import pytest

from trainer import settings
from trainer.byol.config import HeadConfig, OptimizerConfig, PretrainingConfig, ViewConfig
from trainer.probe.config import ProbeConfig


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (ViewConfig, {"flip": 1.5}, "flip is a probability, 0 to 1; received 1.5"),
        (ViewConfig, {"solarize": -0.1}, "solarize is a probability"),
        (ViewConfig, {"brightness": 1.2}, "brightness is the largest relative change"),
        (ViewConfig, {"hue": 0.6}, "hue is a share of the full turn, 0 to 0.5; received 0.6"),
        (ViewConfig, {"minimum_area": 0.0}, "minimum_area is a share"),
        (ViewConfig, {"maximum_ratio": 0.9}, "maximum_ratio is at least 1"),
        (ViewConfig, {"blur_sigma": (2.0, 0.1)}, "blur_sigma is .smallest, largest."),
        (ViewConfig, {"size": 4}, "at least 8 pixels"),
        (HeadConfig, {"output_dim": 0}, "sizes are at least 1"),
        (OptimizerConfig, {"name": "adam"}, "one of sgd, adamw, lars; received 'adam'"),
        (OptimizerConfig, {"base_learning_rate": 0.0}, "Learning rate above 0"),
        (OptimizerConfig, {"eta": 0.0}, "eta is above 0"),
        (PretrainingConfig, {"epochs": 0}, "at least 1 epoch"),
        (PretrainingConfig, {"batch_size": 1}, "batches of 2, for batch norm"),
        (PretrainingConfig, {"base_tau": 1.1}, "base_tau is 0 to 1; received 1.1"),
        (
            PretrainingConfig,
            {"precision": "float16"},
            "one of auto, float32, mixed_bfloat16; received 'float16'",
        ),
        (PretrainingConfig, {"checkpoint_minutes": -1.0}, "at least 0; received checkpoint_minutes=-1.0"),
        (PretrainingConfig, {"checkpoints_kept": 0}, "at least 1, devices at least 0; received 0, 1 and 1"),
        (PretrainingConfig, {"steps_per_execution": 0}, "received 2, 0 and 1"),
        (PretrainingConfig, {"devices": -1}, "received 2, 1 and -1"),
        (ProbeConfig, {"learning_rates": ()}, "learning rates above 0"),
        (ProbeConfig, {"weight_decays": ()}, "weight decays and crops are at least 0"),
        (ProbeConfig, {"crops": -1}, "weight decays and crops are at least 0"),
        (ProbeConfig, {"learning_rates": (0.1, 0.0)}, "learning rates above 0"),
        (ProbeConfig, {"epochs": 0}, "above 0"),
    ],
)
def test_an_impossible_value_is_named(config, values, message):
    with pytest.raises(ValueError, match=message):
        config(**values)


def test_the_horizon_is_whole_batches_of_every_epoch():
    config = PretrainingConfig(epochs=3, batch_size=16, optimizer=OptimizerConfig(warmup_steps=2))
    assert config.total_steps(64) == 12
    assert config.total_steps(79) == 12  # the rest of an epoch is left out


def test_too_few_images_or_too_long_a_warm_up_is_refused():
    config = PretrainingConfig(epochs=1, batch_size=16, optimizer=OptimizerConfig(warmup_steps=4))
    with pytest.raises(ValueError, match=r"at least one batch of 16 images; received 15"):
        config.total_steps(15)
    with pytest.raises(ValueError, match=r"4 steps ends inside its warm-up of 4"):
        config.total_steps(64)
    assert config.total_steps(80) == 5


def test_a_configuration_survives_plain_values():
    config = PretrainingConfig(
        epochs=7, view_1=ViewConfig(blur=0.5, blur_sigma=(0.2, 1.0)), optimizer=OptimizerConfig(name="lars")
    )
    assert settings.from_dict(PretrainingConfig, dataclasses.asdict(config)) == config
    as_json = dataclasses.asdict(config) | {"base_tau": 1}  # a whole number where a float is meant
    found = settings.from_dict(PretrainingConfig, as_json)
    assert (found.base_tau, type(found.base_tau)) == (1.0, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "no setting 'pretraining.epoch'. Did you mean 'pretraining.epochs'"),
        ({"view_1": {"flop": 0.1}}, "no setting 'pretraining.view_1.flop'. Did you mean"),
        ({"#": 1}, "There is no setting .pretraining.#."),
        ({"epochs": "3"}, "pretraining.epochs must be int; received '3'"),
        ({"epochs": True}, "pretraining.epochs must be int; received True"),
        ({"epochs": 2.5}, "pretraining.epochs must be int; received 2.5"),
        ({"base_tau": None}, "pretraining.base_tau must be float; received None"),
        ({"head": 5}, "pretraining.head must be HeadConfig; received 5"),
        (
            {"view_1": {"blur_sigma": (1.0,)}},
            r"pretraining.view_1.blur_sigma needs 2 values; received \(1.0,\)",
        ),
        ({"view_1": {"blur_sigma": (1.0, "2")}}, r"blur_sigma\[1\] must be float; received '2'"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(values, message):
    with pytest.raises(ValueError, match=message):
        settings.from_dict(PretrainingConfig, values, "pretraining.")


def test_overrides_reach_nested_settings_and_leave_the_others():
    config = settings.override(
        PretrainingConfig(),
        ["epochs=3", "optimizer.name=lars", "view_2.blur_sigma=(0.5, 1)", "base_tau = 0.5"],
    )
    assert config == PretrainingConfig(
        epochs=3,
        base_tau=0.5,
        optimizer=OptimizerConfig(name="lars"),
        view_2=ViewConfig(blur_sigma=(0.5, 1.0)),
    )
    assert settings.override(ProbeConfig(), ["learning_rates=[0.1, 1]"]).learning_rates == (0.1, 1.0)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("epochs", "written name=value; received 'epochs'"),
        ("=3", "written name=value"),
        ("optimizer.nam=sgd", "Did you mean 'optimizer.name'"),
        ("optimizer=sgd", "There is no setting 'optimizer'"),
        ("epochs=many", "epochs must be int; received 'many'"),
        ("optimizer.name=adam", "one of sgd, adamw, lars"),
    ],
)
def test_a_wrong_override_is_one_clear_line(assignment, message):
    with pytest.raises(ValueError, match=message):
        settings.override(PretrainingConfig(), [assignment])
