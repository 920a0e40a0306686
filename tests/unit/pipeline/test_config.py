"""Presets and settings: each preset builds, and what `--set` changes is what is changed."""

import dataclasses
import json

import pytest

from components.data import features
from pipeline.config import PRESETS, PipelineConfig, chosen_preset, fitted
from trainer import settings


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_survives_json(name):
    preset = PRESETS[name]
    again = settings.from_dict(PipelineConfig, json.loads(json.dumps(dataclasses.asdict(preset))))
    assert again == preset


@pytest.mark.parametrize("name", PRESETS)
def test_a_presets_training_is_longer_than_its_warm_up(name):
    images = {"demo": 10_000}.get(name, 50_000)
    pretraining = PRESETS[name].pretraining
    assert pretraining.total_steps(images) == images // pretraining.batch_size * pretraining.epochs


def test_override_changes_the_named_setting_alone():
    changed = settings.override(
        PRESETS["demo"], ["pretraining.view_1.grey=0.5", "probe.learning_rates=(0.1,)"]
    )
    assert changed.pretraining.view_1.grey == 0.5
    assert changed.probe.learning_rates == (0.1,)
    assert changed.pretraining.view_2 == PRESETS["demo"].pretraining.view_2
    assert changed.gate == PRESETS["demo"].gate


def test_every_listed_name_can_be_set():
    for name in settings.names(PRESETS["gpu"]):
        value = PRESETS["gpu"]
        for part in name.split("."):
            value = getattr(value, part)
        assert settings.override(PRESETS["gpu"], [f"{name}={value!r}"]) == PRESETS["gpu"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("side", [8, 24, 32])
def test_for_cifar10_and_smaller_pictures_a_preset_is_what_it_was(name, side):
    assert chosen_preset(name, [], side) == PRESETS[name]


@pytest.mark.parametrize(
    ("side", "stem", "view"), [(48, 2, 36), (64, 4, 48), (96, 4, 72), (128, 8, 96), (224, 8, 168)]
)
def test_a_preset_fits_the_size_of_the_pictures(side, stem, view):
    """Three quarters of the picture, as 24 are of 32 pixels; the stages see no more than twice as many as there."""
    config = chosen_preset("cpu", [], side)
    assert (config.encoder.stem_stride, config.pretraining.view_1.size) == (stem, view)
    assert config.pretraining.view_1 == config.pretraining.view_2
    assert 24 // 2 <= view // stem < 2 * 24 // 2
    back = dataclasses.replace(
        config,
        encoder=PRESETS["cpu"].encoder,
        pretraining=dataclasses.replace(
            config.pretraining,
            view_1=PRESETS["cpu"].pretraining.view_1,
            view_2=PRESETS["cpu"].pretraining.view_2,
        ),
    )
    assert back == PRESETS["cpu"]  # nothing else


def test_what_is_set_by_hand_wins_over_the_fit():
    config = chosen_preset("gpu", ["pretraining.view_1.size=40", "encoder.stem_stride=1"], 96)
    assert (config.encoder.stem_stride, config.pretraining.view_1.size) == (1, 40)
    assert config.pretraining.view_2.size == 96
    assert fitted(PRESETS["gpu"], 96).encoder.stem_stride == 2


def test_a_setting_that_is_gone_names_the_one_to_set_instead():
    with pytest.raises(ValueError, match=r"no setting 'memory_images' any more. Set memory_mb, in megabytes"):
        chosen_preset("cpu", ["memory_images=1000"])
    assert chosen_preset("cpu", []).memory_mb * 10**6 == 500_000 * features.IMAGE_BYTES


def test_a_gate_without_test_images_is_refused():
    with pytest.raises(ValueError, match="minimum_test_images is at least 1; received 0"):
        dataclasses.replace(PRESETS["demo"].gate, minimum_test_images=0)


@pytest.mark.parametrize("confidence", [0.4, 1.0])
def test_a_confidence_that_is_none_is_refused(confidence):
    with pytest.raises(ValueError, match=rf"gate.confidence is above 0.5 and below 1; received {confidence}"):
        dataclasses.replace(PRESETS["demo"].gate, confidence=confidence)


def test_one_class_floor_is_every_class_s_and_several_are_as_many_as_classes():
    gate = PRESETS["demo"].gate
    assert dataclasses.replace(gate, class_floors=(0.5,)).floors("abc") == (0.5, 0.5, 0.5)
    assert dataclasses.replace(gate, class_floors=(0.5, 0.25)).floors("ab") == (0.5, 0.25)
    with pytest.raises(ValueError, match="one number, or one for each of 10 classes; received 2"):
        dataclasses.replace(gate, class_floors=(0.5, 0.5)).floors(features.LABEL_NAMES)


def test_a_class_floor_is_set_as_one_number():
    changed = settings.override(PRESETS["demo"], ["gate.class_floors=0.25"])
    assert changed.gate.class_floors == (0.25,)


def test_class_floors_by_name_are_those_of_the_classes_in_whatever_order():
    changed = settings.override(PRESETS["demo"], ["gate.class_floors={'été': 1, 'wool & silk': 0.25}"])
    assert changed.gate.floors(("wool & silk", "<script>", "été")) == (0.25, 0.0, 1.0)
    again = settings.from_dict(PipelineConfig, json.loads(json.dumps(dataclasses.asdict(changed))))
    assert again == changed
    assert (
        settings.override(
            PRESETS["demo"], [settings.lines(changed)[settings.names(changed).index("gate.class_floors")]]
        )
        == changed
    )


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("{'cat': 2.0}", "class_floors is a share, 0 to 1; received 2.0"),
        ("{'cat': 'x'}", r"class_floors\['cat'\] must be float; received 'x'"),
        ("{3: 0.5}", r"by name, \{'NAME': value\}; received the key 3"),
        ("{}", "one floor, or one for each class; received none"),
        ("cat", "class_floors"),
    ],
)
def test_what_class_floors_cannot_be(value, reason):
    with pytest.raises(ValueError, match=reason):
        settings.override(PRESETS["demo"], [f"gate.class_floors={value}"])


def test_a_floor_of_a_class_that_is_none_is_refused_with_the_nearest_name():
    gate = dataclasses.replace(PRESETS["demo"].gate, class_floors={"catt": 0.5})
    with pytest.raises(
        ValueError, match=r"names 'catt', which is no class of this data set. Did you mean 'cat'\?"
    ):
        gate.floors(features.LABEL_NAMES)
