import builtins
import importlib.util

import keras
import numpy as np
import pytest

from keras_cascade import zoo
from keras_cascade._package.resources import folder

FOLDER = folder("saved_models")


@pytest.fixture(scope="module")
def encoder():
    return zoo.load("glyph_encoder")


@pytest.fixture(scope="module")
def expert():
    return zoo.load("digits_expert")


@pytest.fixture(scope="module")
def handwritten():
    pytest.importorskip("sklearn")
    return zoo.digits()


@pytest.fixture(scope="module")
def glyphs():
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location(
        "glyphs", FOLDER / "glyphs.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_names_are_those_of_the_files_with_a_card():
    assert zoo.names() == ["digits_expert", "glyph_encoder"]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'resnet'.* glyph_encoder"):
        zoo.load("resnet")


@pytest.mark.parametrize("name", zoo.names())
def test_a_network_has_the_name_of_its_file_and_stock_layers(name):
    network = zoo.load(name)
    assert network.name == name
    for layer in network.layers:
        assert type(layer).__module__.startswith("keras.")


def test_the_networks_take_less_than_three_megabytes_together():
    files = [FOLDER / f"{name}.keras" for name in zoo.names()]
    assert sum(file.stat().st_size for file in files) < 3e6


def test_the_interfaces_are_the_documented_ones(encoder, expert):
    assert encoder.input_shape == (None, 32, 32, 1)
    assert encoder.output_shape == (None, 128)
    assert expert.input_shape == (None, 130)
    assert expert.output_shape == (None, 10)


def test_every_stage_of_the_encoder_ends_in_a_map(encoder):
    shapes = [
        encoder.get_layer(f"stage{stage}_out").output.shape
        for stage in (1, 2, 3, 4)
    ]
    assert shapes == [
        (None, 32, 32, 16),
        (None, 16, 16, 32),
        (None, 8, 8, 64),
        (None, 4, 4, 96),
    ]


def test_the_untrained_chain_reads_handwriting(encoder, expert, handwritten):
    _, test = handwritten
    features = encoder.predict(test.images, verbose=0)
    answers = expert.predict(
        np.concatenate([features, test.side], axis=1), verbose=0
    )
    # Guessing gives 0.1; the networks have seen printed characters only.
    assert (answers.argmax(1) == test.labels).mean() > 0.7


def test_the_cards_state_the_size_and_parameters_of_the_files():
    for name in zoo.names():
        card = (FOLDER / f"{name}.md").read_text()
        size = (FOLDER / f"{name}.keras").stat().st_size
        assert f"{size:,}" in card
        assert f"{zoo.load(name).count_params():,}" in card


def test_the_repr_of_digits_is_a_line(handwritten):
    assert repr(handwritten[1]) == (
        "<Digits: images (797, 32, 32, 1), side (797, 2), labels (797,)>"
    )


def test_the_digits_are_split_as_documented(handwritten):
    from sklearn.datasets import load_digits

    train, test = handwritten
    assert train.images.shape == (1000, 32, 32, 1)
    assert test.images.shape == (797, 32, 32, 1)
    labels = np.concatenate([train.labels, test.labels])
    np.testing.assert_array_equal(labels, load_digits().target)


def test_the_digits_are_scaled_to_grey_values(handwritten):
    for part in handwritten:
        assert part.images.dtype == "float32"
        assert part.images.min() == 0
        assert 200 < part.images.max() <= 255


def test_the_side_features_come_with_the_digits(handwritten):
    _, test = handwritten
    np.testing.assert_array_equal(test.side, zoo.side_features(test.images))


def test_enlarging_equals_that_of_keras():
    images = np.random.default_rng(0).uniform(0, 255, (3, 8, 8))
    expected = keras.ops.image.resize(
        images.astype("float32")[..., None], (32, 32)
    )
    np.testing.assert_allclose(
        zoo.enlarge(images),
        keras.ops.convert_to_numpy(expected)[..., 0],
        rtol=1e-5,
        atol=1e-3,
    )


def test_side_features_equal_a_count_of_pixels_by_hand():
    image = np.zeros((1, 32, 32, 1), "float32")
    image[0, 4:28, 10:16] = 200
    image[0, 4, 20] = 100  # just bright enough to widen the box
    image[0, 30, 30] = 99  # too dark for it
    mass = (24 * 6 * 200 + 100 + 99) / (32 * 32 * 255)
    np.testing.assert_allclose(
        zoo.side_features(image), [[mass, 11 / 24]], rtol=1e-6
    )


def test_side_features_take_images_with_and_without_a_channel():
    images = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 1))
    np.testing.assert_array_equal(
        zoo.side_features(images), zoo.side_features(images[..., 0])
    )


def test_side_features_clip_the_aspect_ratio():
    images = np.zeros((2, 32, 32))
    images[0, :, 5] = 255
    images[1, 5, :] = 255
    np.testing.assert_allclose(zoo.side_features(images)[:, 1], [0.2, 3.0])


def test_side_features_of_a_black_image_are_finite():
    np.testing.assert_array_equal(
        zoo.side_features(np.zeros((1, 32, 32))), [[0, 1]]
    )


@pytest.mark.parametrize("shape", [(32, 32), (2, 32, 32, 3), (2, 9)])
def test_side_features_refuse_other_arrays_than_grey_images(shape):
    with pytest.raises(ValueError, match="expects grey images"):
        zoo.side_features(np.zeros(shape))


def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch):
    original = builtins.__import__

    def without_sklearn(name, *args, **kwargs):
        if name.startswith("sklearn"):
            raise ImportError(name)
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_sklearn)
    with pytest.raises(ImportError, match=r"keras_cascade\[demo\]"):
        zoo.digits()


def test_renderings_depend_on_nothing_but_the_seed(glyphs):
    source = glyphs.atlas(glyphs.TEST_FACES[:1])
    first, again, other = (
        glyphs.render(source, ["0", "A", "g"], np.random.default_rng(seed))
        for seed in (7, 7, 8)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_renderings_fit_the_encoder(glyphs):
    source = glyphs.atlas(glyphs.TEST_FACES[:1])
    images = glyphs.render(source, ["3"] * 20, np.random.default_rng(0))
    assert images.shape == (20, 32, 32, 1)
    assert images.dtype == "float32"
    assert 0 <= images.min() < images.max() <= 255


def test_no_font_is_both_trained_on_and_held_out(glyphs):
    trained = {face.file for face in glyphs.TRAIN_FACES}
    assert trained.isdisjoint(face.file for face in glyphs.TEST_FACES)
