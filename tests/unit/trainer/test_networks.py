import keras
import numpy as np
import pytest

from tests.unit.trainer import reference
from tests.unit.trainer.conftest import TINY
from trainer import architecture, networks, representations
from trainer.architecture import EncoderConfig

MEAN, STD = np.array([0.5, 0.4, 0.3], np.float32), np.array([0.2, 0.25, 0.3], np.float32)


def encoder_of(config=TINY, seed=0, **options):
    return networks.build_encoder(config, MEAN, STD, seed, **options)


def test_resnet18_has_the_published_number_of_weights():
    # He et al.'s ResNet-18 without its classifier has 11,176,512; a 3x3 stem takes 3*3*3*64 instead of 7*7*3*64.
    expected = 11_176_512 - (49 - 9) * 3 * 64
    network = encoder_of(architecture.RESNET18)
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == expected
    assert network.output_shape == (None, 512)


@pytest.mark.parametrize(("stride", "expected"), [(1, 8), (2, 4), (4, 2), (8, 1)])
def test_only_the_stem_and_later_stages_halve_the_image(stride, expected):
    network = encoder_of(EncoderConfig((4, 6, 8), (1, 2, 1), stride))
    last = network.get_layer("stage3_block1_relu2").output
    image = np.zeros((1, 32, 32, 3), np.float32)
    assert keras.Model(network.input, last)(image).shape == (1, expected, expected, 8)


@pytest.mark.parametrize(
    ("side", "stride"), [(8, 2), (32, 2), (63, 2), (64, 4), (96, 4), (127, 4), (128, 8), (1024, 64)]
)
def test_the_stem_halves_as_often_as_a_picture_is_twice_as_large(side, stride):
    assert architecture.RESNET10_NARROW.for_side(side).stem_stride == stride


def test_a_stem_of_several_convolutions_misses_no_pixel_and_doubles_its_channels():
    config = EncoderConfig((32, 48), (1, 1), 8)
    assert config.stem == ((8, 2), (16, 2), (32, 2))
    network = encoder_of(config)
    kernels = [network.get_layer(f"stem{number}").kernel.shape for number in (1, 2, 3)]
    assert [tuple(shape) for shape in kernels] == [(3, 3, 3, 8), (3, 3, 8, 16), (3, 3, 16, 32)]
    for layer in network.layers:
        if isinstance(layer, keras.layers.Conv2D):  # all kernels one: each pixel that is seen counts
            layer.kernel.assign(np.ones(layer.kernel.shape, np.float32))
    stem = keras.Model(network.input, network.get_layer("stem3").output)
    plain = np.asarray(stem(np.full((1, 16, 16, 3), 0.9, np.float32)))
    for row in range(8, 12):  # of one receptive field's centre
        for column in range(8, 12):
            image = np.full((1, 16, 16, 3), 0.9, np.float32)
            image[0, row, column] = 1.0
            assert np.abs(np.asarray(stem(image)) - plain).max() > 0.01, (row, column)


def test_cifar10s_encoders_are_the_networks_they_were():
    """Their weights by name and shape, and the first initial values by the seed alone: He et al.'s normal."""
    network = encoder_of(architecture.RESNET10_NARROW.for_side(32), seed=5)
    shapes = {
        v.path.split("/", 1)[-1]: tuple(v.shape) for v in network.trainable_variables if "stem" in v.path
    }
    assert sorted(shapes.values()) == [(3, 3, 3, 48), (48,), (48,)]
    assert sum(int(np.prod(v.shape)) for v in network.trainable_variables) == 4_035_312
    (child,) = np.random.SeedSequence(5).spawn(1)
    first = keras.initializers.HeNormal(seed=int(child.generate_state(1)[0] >> 1))((3, 3, 3, 48))
    np.testing.assert_array_equal(network.get_layer("stem").kernel, first)


def test_a_seed_gives_equal_networks_with_different_layers():
    first, again, other = encoder_of(seed=3), encoder_of(seed=3), encoder_of(seed=4)
    for a, b in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    kernels = {layer.name: layer.kernel for layer in first.layers if isinstance(layer, keras.layers.Conv2D)}
    twins = [k for k in kernels if tuple(kernels[k].shape) == (3, 3, 16, 16)]
    assert len(twins) == 1
    assert not np.array_equal(first.get_layer("stem").get_weights(), other.get_layer("stem").get_weights())
    head = networks.build_head(8, 8, 8, 0, "head")
    assert not np.array_equal(
        head.get_layer("hidden").get_weights()[0], head.get_layer("output").get_weights()[0]
    )


def test_kernels_start_he_normal():
    kernel = networks.build_head(256, 256, 8, 0, "head").get_layer("hidden").get_weights()[0]
    assert kernel.std() == pytest.approx(np.sqrt(2 / 256), rel=0.03)
    assert kernel.mean() == pytest.approx(0, abs=1e-3)


def test_the_encoder_normalises_by_the_training_statistics():
    network = encoder_of()
    normalised = keras.Model(network.input, network.get_layer("normalization").output)
    image = np.random.default_rng(0).uniform(0, 1, (2, 8, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(normalised(image), (image - MEAN) / STD, atol=1e-5)


def test_batch_norm_has_the_references_momentum_and_epsilon():
    norms = [layer for layer in encoder_of().layers if isinstance(layer, keras.layers.BatchNormalization)]
    head = networks.build_head(8, 8, 8, 0, "head")
    norms += [layer for layer in head.layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert len(norms) == 7  # stem, two and two with a shortcut's, head
    assert {(norm.momentum, norm.epsilon) for norm in norms} == {(0.9, 1e-5)}


def test_a_head_equals_numpy_and_moves_its_moments_by_a_tenth():
    rng = np.random.default_rng(2)
    head = networks.build_head(6, 5, 4, 0, "head")
    weights = [rng.normal(size=w.shape).astype(np.float32) for w in head.get_weights()]
    # In order: hidden kernel, gamma, beta, moving mean, moving variance, output kernel, output bias.
    weights[4] = np.abs(weights[4]) + 0.5
    head.set_weights(weights)
    kernel, gamma, beta, moving_mean, moving_variance, output, bias = (w.astype(np.float64) for w in weights)
    x = rng.normal(size=(9, 6)).astype(np.float32)
    hidden = x @ kernel
    normal, mean, variance = reference.batch_norm(hidden, gamma, beta)
    np.testing.assert_allclose(
        head(x, training=True), np.maximum(normal, 0) @ output + bias, rtol=1e-4, atol=1e-5
    )
    moments = head.get_layer("norm").get_weights()[2:]
    np.testing.assert_allclose(moments[0], 0.9 * moving_mean + 0.1 * mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(moments[1], 0.9 * moving_variance + 0.1 * variance, rtol=1e-5)
    by_moments = gamma * (hidden - moments[0]) / np.sqrt(moments[1] + 1e-5) + beta
    np.testing.assert_allclose(head(x), np.maximum(by_moments, 0) @ output + bias, rtol=1e-4, atol=1e-5)


def test_l2_normalize_gives_unit_rows_and_keeps_zero():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-3, 0.0]], np.float32)
    np.testing.assert_allclose(networks.l2_normalize(x), np.array([[0.6, 0.8], [0, 0], [1, 0]]), atol=1e-6)


def test_embed_is_the_encoder_in_inference_mode_whatever_the_batch(images):
    network = encoder_of()
    expected = np.asarray(network(images / np.float32(255), training=False))
    for batch_size in (64, 7):
        found = representations.embed(network, images, batch_size)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (((), ()), "at least one"),
        (((8, 16), (1,)), "one block count for each stage"),
        (((8, 0), (1, 1)), "at least 1"),
        (((8,), (1,), 3), "stem_stride must be one of 1, 2, 4, 8, 16, 32, 64; received 3"),
    ],
)
def test_an_impossible_architecture_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        EncoderConfig(*values)
