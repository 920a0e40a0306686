import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from PIL import Image

from tests.unit.trainer import reference
from tests.unit.trainer.conftest import AS_IS
from trainer.byol import augmentations
from trainer.byol.config import ViewConfig

DRAWN = 4000


def draws_of(count, seed=0, **columns):
    """Random draws with some columns set: names of `augmentations`' constants, without the underscore."""
    draws = np.random.default_rng(seed).uniform(0, 1, (count, augmentations.DRAWS)).astype(np.float32)
    for name, value in columns.items():
        draws[:, getattr(augmentations, f"_{name.upper()}")] = value
    return draws


def view_of(images, draws, **changes):
    config = dataclasses.replace(AS_IS, size=images.shape[1], **changes)
    return np.asarray(augmentations.make_view(images, draws, config))


def middling(count, size=16, seed=3):
    """[count, size, size, 3] float32 in [0.4, 0.6], so that moderate jitter never reaches 0 or 1."""
    return np.random.default_rng(seed).uniform(0.4, 0.6, (count, size, size, 3)).astype(np.float32)


def many_small():
    """One asymmetric coloured 8x8 image, DRAWN times."""
    image = np.random.default_rng(5).uniform(0, 1, (1, 8, 8, 3)).astype(np.float32)
    return np.repeat(image, DRAWN, axis=0)


def changed(view, images, tolerance=1e-3):
    return np.abs(view - images).max(axis=(1, 2, 3)) > tolerance


def assert_rate(happened, probability):
    """Within five standard deviations of a coin tossed as often."""
    deviation = np.sqrt(probability * (1 - probability) / len(happened))
    assert abs(np.mean(happened) - probability) <= 5 * deviation, np.mean(happened)


def test_without_augmentations_the_view_is_the_image(images):
    view = np.asarray(augmentations.make_view(images[:4], draws_of(4), AS_IS))
    np.testing.assert_allclose(view, images[:4] / 255.0, atol=2e-6)
    assert view.dtype == np.float32


def test_uint8_and_float_images_give_the_same_view(images):
    draws = draws_of(4)
    config = ViewConfig(blur=1.0, solarize=0.5)
    from_bytes = augmentations.make_view(images[:4], draws, config)
    from_floats = augmentations.make_view((images[:4] / 255.0).astype(np.float32), draws, config)
    np.testing.assert_allclose(from_bytes, from_floats, atol=1e-6)


def test_a_view_stays_within_zero_and_one_and_has_its_own_size(images):
    view = np.asarray(augmentations.make_view(images, draws_of(64), ViewConfig(size=24, solarize=0.5)))
    assert view.shape == (64, 24, 24, 3)
    assert view.min() >= 0.0
    assert view.max() <= 1.0


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_crop_is_pils_bicubic_resize_of_the_same_box(images, size):
    config = dataclasses.replace(AS_IS, minimum_area=0.08, maximum_ratio=4 / 3, size=size)
    draws = draws_of(16, seed=size)
    top, left, height, width = (np.asarray(v) for v in augmentations.crop_boxes(draws, 32, 32, config))
    views = np.asarray(augmentations.make_view(images[:16], draws, config))
    for k in range(16):
        box = (left[k], top[k], left[k] + width[k], top[k] + height[k])
        for channel in range(3):
            plane = Image.fromarray((images[k, :, :, channel] / 255.0).astype(np.float32))
            resized = np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC, box=box))
            np.testing.assert_allclose(views[k, :, :, channel], np.clip(resized, 0, 1), atol=2e-5)


def test_crops_have_the_areas_and_ratios_of_the_recipe():
    config = ViewConfig(minimum_area=0.2, maximum_ratio=4 / 3)
    draws = draws_of(DRAWN)
    top, left, height, width = (
        np.asarray(v, np.float64) for v in augmentations.crop_boxes(draws, 32, 32, config)
    )
    for start, length in ((top, height), (left, width)):
        assert start.min() >= 0
        assert (start + length).max() <= 32 + 1e-4
    share, ratio = height * width / 32**2, width / height
    assert 0.2 * 3 / 4 < share.min() < 0.22  # a side cut to the image loses area
    assert share.max() <= 1 + 1e-6
    assert share.max() > 0.95
    uncut = (height < 32) & (width < 32)
    assert 3 / 4 - 1e-4 < ratio[uncut].min() < 0.77
    assert 1.31 < ratio[uncut].max() < 4 / 3 + 1e-4
    # Small crops are never cut: their ratio is log-uniform, so as often wide as high, and centred on 1.
    small = share < 0.6
    assert_rate(ratio[small] > 1, 0.5)
    assert abs(np.mean(np.log(ratio[small]))) < 5 * np.log(4 / 3) / np.sqrt(3 * small.sum())
    assert np.mean(share < 0.6) == pytest.approx(0.5, abs=0.05)  # area uniform in 0.2..1


def test_crops_differ_between_the_images_and_cover_them():
    top, left, height, width = (
        np.asarray(v) for v in augmentations.crop_boxes(draws_of(DRAWN), 32, 32, ViewConfig())
    )
    free = (32 - height > 1) & (32 - width > 1)
    down, across = (top / (32 - height + 1e-6))[free], (left / (32 - width + 1e-6))[free]
    for place in (down, across):
        assert np.mean(place) == pytest.approx(0.5, abs=0.03)
        assert place.min() < 0.01
        assert place.max() > 0.99
    assert abs(np.corrcoef(down, across)[0, 1]) < 0.1


@pytest.mark.parametrize("probability", [0.0, 0.2, 0.5, 1.0])
def test_the_flip_mirrors_left_and_right_at_its_rate(probability):
    image = many_small()
    view = view_of(image, draws_of(DRAWN), flip=probability)
    flipped = changed(view, image)
    np.testing.assert_allclose(view[flipped], image[flipped][:, :, ::-1], atol=2e-6)
    assert_rate(flipped, probability)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_grey_replaces_colour_by_luma_at_its_rate(probability):
    image = many_small()
    view = view_of(image, draws_of(DRAWN), grey=probability)
    happened = changed(view, image)
    np.testing.assert_allclose(view[happened], reference.grey(image[happened]), atol=2e-6)
    assert_rate(happened, probability)


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
def test_solarize_inverts_the_bright_half_at_its_rate(probability):
    image = many_small()
    view = view_of(image, draws_of(DRAWN), solarize=probability)
    happened = changed(view, image)
    np.testing.assert_allclose(view[happened], reference.solarize(image[happened]), atol=2e-6)
    assert_rate(happened, probability)


@pytest.mark.parametrize("probability", [0.0, 0.8, 1.0])
def test_jitter_changes_colours_at_its_rate(probability):
    image = many_small()
    view = view_of(image, draws_of(DRAWN), jitter=probability)
    assert_rate(changed(view, image, 1e-5), probability)


@pytest.mark.parametrize("probability", [0.0, 0.1, 1.0])
def test_blur_happens_at_its_rate(probability):
    image = many_small()
    view = view_of(image, draws_of(DRAWN, sigma=0.5), blur=probability)
    assert_rate(changed(view, image), probability)


def test_blur_is_the_gaussian_of_the_drawn_width():
    image = middling(5)
    sigmas = np.array([0.1, 0.5, 1.0, 1.7, 2.0], np.float32)
    draws = draws_of(5)
    draws[:, augmentations._SIGMA] = (sigmas - 0.1) / 1.9
    view = view_of(image, draws, blur=1.0, blur_sigma=(0.1, 2.0))
    for k in range(5):
        np.testing.assert_allclose(view[k], reference.blur(image[k].astype(np.float64), sigmas[k]), atol=2e-5)


def test_colour_jitter_equals_the_operations_one_after_another_in_the_drawn_order():
    image = middling(40)
    draws = draws_of(40, seed=9)
    view = view_of(image, draws, jitter=1.0, brightness=0.2, contrast=0.3, saturation=0.3, hue=0.1)
    kinds = [reference.brightness, reference.contrast, reference.saturation, reference.hue]
    orders = set()
    for k in range(40):
        unit = 2 * draws[k, augmentations._BRIGHTNESS : augmentations._HUE + 1].astype(np.float64) - 1
        amounts = [1 + 0.2 * unit[0], 1 + 0.3 * unit[1], 1 + 0.3 * unit[2], 0.1 * unit[3]]
        order = np.argsort(draws[k, augmentations._ORDER])
        orders.add(tuple(order))
        expected = image[k].astype(np.float64)
        for kind in order:
            expected = kinds[kind](expected, amounts[kind])
        assert 0 < expected.min() < expected.max() < 1  # nothing is clipped, so the comparison is fair
        np.testing.assert_allclose(view[k], expected, atol=2e-5)
    assert len(orders) > 15  # of 24


@pytest.mark.parametrize(
    ("name", "operation", "neutral"),
    [
        ("brightness", reference.brightness, 1.0),
        ("contrast", reference.contrast, 1.0),
        ("saturation", reference.saturation, 1.0),
        ("hue", reference.hue, 0.0),
    ],
)
def test_each_colour_operation_reaches_both_ends_of_its_magnitude(name, operation, neutral):
    image = middling(2)
    off = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0}
    for drawn, sign in ((0.0, -1), (1.0, 1)):
        view = view_of(image, draws_of(2, **{name: drawn}), jitter=1.0, **(off | {name: 0.2}))
        for k in range(2):
            expected = operation(image[k].astype(np.float64), neutral + sign * 0.2)
            np.testing.assert_allclose(view[k], expected, atol=2e-5)


def test_a_full_turn_of_the_hue_changes_nothing_and_a_half_turn_does():
    image = middling(2)
    half = view_of(image, draws_of(2, hue=0.0), jitter=1.0, brightness=0, contrast=0, saturation=0, hue=0.5)
    other = view_of(image, draws_of(2, hue=1.0), jitter=1.0, brightness=0, contrast=0, saturation=0, hue=0.5)
    np.testing.assert_allclose(half, other, atol=1e-5)  # -180 and +180 degrees
    assert changed(half, image).all()
    np.testing.assert_allclose(reference.luma(half), reference.luma(image), atol=1e-4)


def test_solarize_comes_after_the_colours_are_cut_to_zero_and_one():
    bright = np.full((1, 16, 16, 3), 0.9, np.float32)
    view = view_of(
        bright,
        draws_of(1, brightness=1.0),
        jitter=1.0,
        brightness=0.4,
        contrast=0,
        saturation=0,
        hue=0,
        solarize=1.0,
    )
    np.testing.assert_allclose(view, 0.0, atol=1e-6)  # 1.26 is cut to 1, then inverted


def test_the_augmentations_are_drawn_independently():
    draws = np.asarray(augmentations.draw(DRAWN, keras.random.SeedGenerator(0)))
    assert draws.shape == (DRAWN, augmentations.DRAWS)
    assert draws.min() >= 0
    assert draws.max() < 1
    assert np.abs(draws.mean(axis=0) - 0.5).max() < 5 * np.sqrt(1 / 12 / DRAWN)
    correlation = np.corrcoef(draws.T) - np.eye(augmentations.DRAWS)
    assert np.abs(correlation).max() < 5 / np.sqrt(DRAWN)
    columns = [v for name, v in vars(augmentations).items() if name[1:].isupper() and isinstance(v, int)]
    ordered = [*columns, *range(*augmentations._ORDER.indices(augmentations.DRAWS))]
    used = sorted(c for c in ordered if c != augmentations.DRAWS)
    assert used == list(range(augmentations.DRAWS))  # no number decides two things


def test_a_seed_gives_the_same_draws_again_and_then_others():
    seed = keras.random.SeedGenerator(7)
    first, second = (np.asarray(augmentations.draw(4, seed)) for _ in range(2))
    again = np.asarray(augmentations.draw(4, keras.random.SeedGenerator(7)))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - second).max() > 0.1


def test_eager_and_compiled_views_agree(images):
    config = ViewConfig(blur=0.5, solarize=0.5)
    draws = draws_of(8)

    def view(x):
        return augmentations.make_view(x, draws, config)

    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        compiled = tf.function(view)
    else:
        import jax

        compiled = jax.jit(view)
    eager = ops.convert_to_numpy(view(images[:8]))
    # Only a value within rounding of 0.5 may fall on the other side of the solarisation.
    differs = np.abs(ops.convert_to_numpy(compiled(images[:8])) - eager) > 1e-5
    assert differs.mean() < 1e-3
