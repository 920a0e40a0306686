"""The recipe of garder14/byol-tensorflow2 runs as published: views, layers, loss, optimizer and linear evaluation.

References are the calls of its own source at cd2f29b, on tf.image and Keras, with draws that are known.
"""

import dataclasses
import json

import keras
import numpy as np
import pytest

from benchmarks import garder14_probe, pretrain
from components.data import synthetic
from trainer import representations
from trainer.byol import augmentations, garder14_views, losses, recipes
from trainer.byol.config import ViewConfig
from trainer.byol.pretraining import PretrainingImages, build_model

RECIPE = recipes.GARDER14
VIEW = RECIPE.pretraining.view_1


def drawn(count, seed=0, **columns):
    draws = np.random.default_rng(seed).uniform(0, 1, (count, augmentations.DRAWS)).astype(np.float32)
    for name, value in columns.items():
        draws[:, getattr(garder14_views, f"_{name.upper()}")] = value
    return draws


def published_view(image, row):
    """augmentation.py's augment_image_pretraining with its random numbers in the order of `draws`."""
    import tensorflow as tf

    side, share, upright, top, left, flip, jitter, brightness, contrast, saturation, hue, grey = map(
        float, row[:12]
    )
    height = int(13 + 20 * side)
    width = int(np.float32(height) * np.float32(0.67 + 0.33 * share))
    if upright < 0.5:
        height, width = width, height
    image = tf.image.crop_to_bounding_box(
        image, int(top * (33 - height)), int(left * (33 - width)), height, width
    )
    if flip < 0.25:
        image = tf.image.flip_left_right(image)
    image = tf.image.resize(image, size=[32, 32])
    if jitter < 0.8:
        image = tf.image.adjust_brightness(image, 0.4 * (2 * brightness - 1))
        image = tf.image.adjust_contrast(image, 0.6 + 0.8 * contrast)
        image = tf.image.adjust_saturation(image, 0.6 + 0.8 * saturation)
        image = tf.image.adjust_hue(image, 0.1 * (2 * hue - 1))
        image = tf.clip_by_value(image, 0, 1)
    if grey < 0.2:
        image = tf.tile(tf.image.rgb_to_grayscale(image), [1, 1, 3])
    return image.numpy()


def test_its_views_are_those_of_its_own_calls(images):
    pytest.importorskip("tensorflow")
    count = 60
    rng = np.random.default_rng(4)
    sharp = rng.uniform(0, 1, (count // 2, 32, 32, 3)) ** 3  # dark and bright: beyond 0 and 1 once jittered
    smooth = images[: count // 2] / 255.0
    pixels = np.concatenate([sharp, smooth]).astype(np.float32)
    draws = drawn(count, seed=1)
    found = np.asarray(augmentations.make_view(pixels, draws, VIEW))
    expected = np.stack([published_view(image, row) for image, row in zip(pixels, draws, strict=True)])
    # Where two channels are equal but for rounding, hue is either of two neighbours.
    np.testing.assert_allclose(found, expected, atol=2e-4)
    assert np.abs(found - pixels).max() > 0.5
    assert ((found == 0) | (found == 1)).mean() > 0.01


def test_its_crops_are_13_to_32_pixels_and_inside_the_image():
    top, left, height, width = (np.asarray(side) for side in garder14_views.crop_boxes(drawn(4000)))
    longer, shorter = np.maximum(height, width), np.minimum(height, width)
    assert (longer.min(), longer.max()) == (13, 32)
    assert (shorter >= np.floor(0.67 * longer)).all()
    assert 0.4 < np.mean(height > width) < 0.6
    for start, size in ((top, height), (left, width)):
        assert start.min() == 0
        assert (start + size).max() == 32
        assert (start == np.floor(start)).all()


def test_a_view_of_it_with_blur_or_of_other_images_is_refused():
    with pytest.raises(ValueError, match=r"crops of 32x32 images; received 64x64\. Give .*kind=byol"):
        augmentations.make_view(np.zeros((1, 64, 64, 3), np.float32), drawn(1), VIEW)
    with pytest.raises(ValueError, match=r"neither blur nor solarisation; received blur=0.5"):
        ViewConfig(kind="garder14", blur=0.5)
    with pytest.raises(ValueError, match=r"kind is one of byol, garder14; received 'odd'"):
        ViewConfig(kind="odd")


def published(data, **changes):
    """The recipe's model on few images with a narrow network of its layers."""
    config = dataclasses.replace(
        RECIPE.pretraining,
        batch_size=16,
        epochs=3,
        head=dataclasses.replace(RECIPE.pretraining.head, hidden_dim=16, output_dim=8),
        **changes,
    )
    encoder = dataclasses.replace(RECIPE.encoder, widths=(8, 16), blocks=(1, 1), stem_stride=2)
    unscaled = PretrainingImages(data.images, np.zeros(3, np.float32), np.ones(3, np.float32))
    return build_model(config, encoder, unscaled)


def test_its_layers_start_as_keras_does_and_norm_as_keras_does(data):
    """models.py gives Conv2D, Dense and BatchNormalization nothing but sizes."""
    model = published(data)
    for network in (model.online_encoder, model.online_projector, model.predictor, model.target_encoder):
        for layer in network.layers:
            if "norm" in layer.name and layer.name != "normalization":
                assert (layer.momentum, layer.epsilon) == (0.99, 1e-3)
            elif hasattr(layer, "kernel"):
                kernel = keras.ops.convert_to_numpy(layer.kernel)
                fans = np.prod(kernel.shape[:-2]) * (kernel.shape[-2] + kernel.shape[-1])
                limit = np.sqrt(6.0 / fans)  # Glorot and Bengio (2010), equation 16
                assert 0.8 * limit < np.abs(kernel).max() <= limit, layer.name
    white = np.ones((1, 8, 8, 3), np.float32)
    normalised = model.online_encoder.get_layer("normalization")(white)
    np.testing.assert_allclose(np.asarray(normalised), 1.0, atol=1e-6)


def test_its_rate_and_tau_stay_as_they_begin(data):
    model = published(data)
    online, target = model.target_pairs()[0]
    for step in (0, 5, 11):
        model.optimizer.iterations.assign(step)
        assert float(model.optimizer.learning_rate) == pytest.approx(1e-3 * 16 / 512)
        model.optimizer.iterations.assign(step + 1)
        online.assign(np.ones(online.shape))
        target.assign(np.zeros(target.shape))
        model.update_target()
        np.testing.assert_allclose(np.asarray(target), 0.01, rtol=1e-5)


def test_its_adam_on_the_mean_of_the_terms_makes_our_steps():
    """losses.py's byol_loss on both views together, by Keras' Adam; ours is twice that, and so is epsilon."""
    rng = np.random.default_rng(2)
    p, z = rng.normal(size=(2, 2, 6, 4)).astype(np.float32)
    unit = [v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (p.reshape(12, 4), z[::-1].reshape(12, 4))]
    published_loss = 2 - 2 * np.mean(np.sum(unit[0] * unit[1], axis=1))
    ours = float(np.mean(np.asarray(losses.byol_loss(p[0], p[1], z[0], z[1]))))
    assert ours == pytest.approx(2 * published_loss, rel=1e-5)
    settings = RECIPE.pretraining.optimizer
    # Gradients about as small as epsilon, where it counts.
    gradients = rng.normal(size=(5, 3)) * np.array([1e-7, 1e-6, 1.0])
    w, m, v = np.zeros(3), np.zeros(3), np.zeros(3)
    variable = keras.Variable(np.zeros(3, np.float32))
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=settings.weight_decay, epsilon=settings.epsilon)
    optimizer.build([variable])
    for step, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        rate = 1e-3 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        w = w - rate * m / (np.sqrt(v) + 1e-7)
        optimizer.apply([keras.ops.convert_to_tensor((2 * g).astype(np.float32))], [variable])
    np.testing.assert_allclose(np.asarray(variable.value), w, rtol=1e-4)


def test_its_linear_evaluation_learns_on_crops_that_are_drawn_anew(monkeypatch):
    """Colours that a linear layer tells apart, through an encoder that is their mean."""
    rng = np.random.default_rng(0)
    labels = np.arange(96) % 3
    images = np.clip(rng.normal(60, 20, (96, 32, 32, 3)) + 120 * np.eye(3)[labels][:, None, None], 0, 255)
    images = images.astype(np.uint8)
    pixels = keras.Input((32, 32, 3))
    encoder = keras.Model(pixels, keras.layers.GlobalAveragePooling2D()(pixels))
    seen = []
    plain = garder14_probe._CroppedFeatures.predict_on_batch

    def remember(self, batch):
        seen.append(plain(self, batch))
        return seen[-1]

    monkeypatch.setattr(garder14_probe._CroppedFeatures, "predict_on_batch", remember)
    monkeypatch.setattr(garder14_probe, "BATCH", 32)
    classifier = garder14_probe.fit(encoder, images, labels, seed=0, epochs=25)
    assert len(seen) == 25 * 3
    first, second = (np.sort(np.concatenate(seen[i : i + 3]), axis=0) for i in (0, 3))
    assert 1e-3 < np.abs(first - second).max() < 0.1
    assert classifier.accuracy(representations.embed(encoder, images), labels) > 0.9


def test_the_recipe_has_its_numbers_and_says_each_difference_left():
    """Of pretraining.py and linearevaluation.py. A difference that is mended, or a new one, has to be said here."""
    config = RECIPE.pretraining
    assert (config.epochs, config.batch_size, config.precision) == (200, 512, "float32")
    assert (config.base_tau, config.tau_schedule, config.optimizer.schedule) == (0.99, "constant", "constant")
    assert (config.head.hidden_dim, config.head.output_dim) == (256, 128)
    assert (config.optimizer.weight_decay, config.optimizer.warmup_steps) == (0.0, 0)
    assert config.view_1 == config.view_2
    assert not RECIPE.normalised
    assert (garder14_probe.EPOCHS, garder14_probe.BATCH) == (50, 512)
    assert [d.split(",")[0] for d in RECIPE.differences] == [
        "It calls one Adam for each network in turn",
        "Its convolutions and the heads' hidden layers have biases",
        "Its EMA takes batch norm's moments along",
    ]


def test_the_benchmark_runs_it_to_its_end(tmp_path, capsys):
    """Few images, a tiny network and no test split: the held-out ones judge."""
    synthetic.write(tmp_path / "data", train=200, test=100)
    tiny = ["encoder.widths=(8,)", "encoder.blocks=(1,)", "encoder.stem_stride=2", "pretraining.epochs=1"]
    tiny += ["pretraining.batch_size=32", "pretraining.monitor_images=0", "probe.epochs=1"]
    pretrain.main(tmp_path / "data", "garder14", tiny, tmp_path / "checkpoints", test=False)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert 0 <= found["byol_published_holdout"] <= 1
    assert not any(name.endswith("test") for name in found)
