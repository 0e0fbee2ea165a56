"""Folders of images and arrays are read, or refused with a reason."""

import sys
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from keras_cascade.cli.data.directories import check_labels, open_directory

SIDES = {"b": (7, 5), "a": (3, 9), "c": (4, 6)}


def image_model(channels: int = 3, size=(4, 6), outputs: int = 3):
    inputs = keras.Input((*size, channels), name="photo")
    pooled = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(outputs)(pooled))


def two_input_model():
    photo = keras.Input((2, 2, 1), name="photo")
    side = keras.Input((2,), name="side")
    merged = keras.layers.Concatenate()([keras.layers.Flatten()(photo), side])
    heads = {
        "kind": keras.layers.Dense(3, name="kind")(merged),
        "age": keras.layers.Dense(1, name="age")(merged),
    }
    return keras.Model([photo, side], heads)


def compiled(model):
    model.compile(
        loss="sparse_categorical_crossentropy",
        metrics=["sparse_categorical_accuracy"],
    )
    return model


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype("uint8")


@pytest.fixture
def classes(tmp_path):
    """Three images of different sizes in each of three folders."""
    for label, (name, size) in enumerate(SIDES.items()):
        (tmp_path / name).mkdir()
        for row in range(3):
            image = pixels(*size, 3, seed=10 * label + row)
            Image.fromarray(image).save(tmp_path / name / f"{row}.png")
    return tmp_path


@pytest.fixture
def arrays():
    return {
        "photo": pixels(5, 2, 2, 1).astype("float32"),
        "side": np.arange(10, dtype="float32").reshape(5, 2),
    }


def as_pairs(data) -> list[tuple[np.ndarray, int]]:
    return [
        (image, int(label))
        for x, y in data
        for image, label in zip(x["photo"], y, strict=True)
    ]


def in_order(pairs) -> list[tuple[np.ndarray, int]]:
    """Sorts pairs by label and brightness, whatever the order of reading."""
    return sorted(pairs, key=lambda pair: (pair[1], float(pair[0].sum())))


def refused(path, model) -> str:
    with pytest.raises(ValueError) as caught:
        list(open_directory(path, model))
    assert str(path) in str(caught.value)
    return str(caught.value)


# images


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_images_and_labels_are_those_of_keras(classes, channels):
    modes = {1: "grayscale", 3: "rgb", 4: "rgba"}
    found = as_pairs(open_directory(classes, image_model(channels)))
    stock = keras.utils.image_dataset_from_directory(
        classes,
        color_mode=modes[channels],
        image_size=(4, 6),
        batch_size=None,
        shuffle=False,
        format="grain",
        verbose=False,
    )
    expected = [
        (keras.ops.convert_to_numpy(image), int(label))
        for image, label in stock
    ]
    assert len(found) == len(expected) == 9
    pairs = zip(in_order(found), in_order(expected), strict=True)
    for (image, label), (own_image, own_label) in pairs:
        assert label == own_label
        np.testing.assert_allclose(image, own_image, atol=1e-3)


def test_an_image_of_the_right_size_is_its_pixels(tmp_path):
    image = pixels(4, 6, 3)
    Image.fromarray(image).save(tmp_path / "one.png")
    ((x,),) = open_directory(tmp_path, image_model())
    np.testing.assert_array_equal(x["photo"][0], image)
    assert x["photo"].dtype == "float32"


def test_images_come_in_batches_again_in_each_pass(classes):
    data = open_directory(classes, image_model(), batch_size=4)
    first, second = list(data), list(data)
    assert [len(y) for _, y in first] == [4, 4, 1]
    for (x, y), (again, labels) in zip(first, second, strict=True):
        np.testing.assert_array_equal(x["photo"], again["photo"])
        np.testing.assert_array_equal(y, labels)


def test_the_first_images_are_of_several_classes(tmp_path):
    for name in "abcd":
        (tmp_path / name).mkdir()
        for row in range(20):
            Image.new("RGB", (2, 2)).save(tmp_path / name / f"{row}.png")
    data = open_directory(tmp_path, image_model(), batch_size=20)
    _, labels = next(iter(data))
    assert set(labels) == {0, 1, 2, 3}


def test_images_are_read_with_their_batch(classes):
    (classes / "a" / "0.png").write_bytes(b"no image")
    data = open_directory(classes, image_model())
    with pytest.raises(ValueError, match=r"'.*0\.png' cannot be read"):
        list(data)


def test_a_truncated_image_is_named(tmp_path):
    path = tmp_path / "cut.jpg"
    Image.fromarray(pixels(64, 64, 3)).save(path)
    path.write_bytes(path.read_bytes()[:1500])
    assert "cut.jpg' cannot be read" in refused(tmp_path, image_model())


def test_an_image_of_16_bits_is_refused(tmp_path):
    deep = np.full((4, 6), 40_000, "uint16")
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert "more than 8 bits" in refused(tmp_path, image_model(1))


def test_an_empty_class_keeps_its_position(classes):
    (classes / "aa").mkdir()
    labels = {
        label for _, label in as_pairs(open_directory(classes, image_model()))
    }
    # a, aa, b, c
    assert labels == {0, 2, 3}


def test_hidden_files_are_no_images(classes):
    (classes / ".thumbnails").mkdir()
    Image.new("RGB", (2, 2)).save(classes / ".thumbnails" / "x.png")
    (classes / "a" / "._0.png").write_bytes(b"")
    assert len(as_pairs(open_directory(classes, image_model()))) == 9


def test_integer_inputs_get_rounded_pixels(classes):
    inputs = keras.Input((4, 6, 3), dtype="uint8", name="photo")
    model = keras.Model(inputs, keras.ops.cast(inputs, "float32"))
    whole = open_directory(classes, model)
    exact = open_directory(classes, image_model())
    for (x, _), (y, _) in zip(whole, exact, strict=True):
        np.testing.assert_array_equal(x["photo"], np.rint(y["photo"]))


def test_images_have_channels_first_if_keras_does(classes):
    last = as_pairs(open_directory(classes, image_model()))
    keras.config.set_image_data_format("channels_first")
    try:
        inputs = keras.Input((3, 4, 6), name="photo")
        model = keras.Model(inputs, inputs * 2)
        first = as_pairs(open_directory(classes, model))
    finally:
        keras.config.set_image_data_format("channels_last")
    for (image, _), (own, _) in zip(first, last, strict=True):
        np.testing.assert_array_equal(image, own.transpose(2, 0, 1))


def test_a_model_of_any_size_gets_images_in_their_own(tmp_path):
    for row in range(2):
        Image.new("RGB", (5, 7)).save(tmp_path / f"{row}.png")
    ((x,),) = open_directory(tmp_path, image_model(size=(None, None)))
    assert x["photo"].shape == (2, 7, 5, 3)


def test_images_of_several_sizes_need_a_model_of_one_size(classes):
    error = refused(classes, image_model(size=(None, None)))
    assert "several sizes" in error


def test_images_beside_folders_of_images_are_refused(classes):
    Image.new("RGB", (2, 2)).save(classes / "stray.png")
    error = refused(classes, image_model())
    assert "'stray.png'" in error
    assert "'a', 'b', 'c'" in error


def test_images_are_one_input(classes):
    error = refused(classes, two_input_model())
    assert "the model has 2: 'photo'" in error
    assert ".npz" in error


@pytest.mark.parametrize("shape", [(4,), (4, 6, 2)])
def test_images_are_refused_for_a_model_that_takes_none(classes, shape):
    inputs = keras.Input(shape, name="signal")
    model = keras.Model(inputs, inputs * 2)
    assert "the model takes none: 'signal'" in refused(classes, model)


def test_without_pillow_the_error_says_what_to_install(classes, monkeypatch):
    find_spec = sys.modules["importlib.util"].find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: None if name == "PIL" else find_spec(name),
    )
    with pytest.raises(ModuleNotFoundError, match="pip install pillow"):
        open_directory(classes, image_model())


# arrays


def with_labels(arrays: dict) -> dict:
    kinds, ages = np.array([0, 2, 1, 0, 1]), np.linspace(0, 1, 5)
    return {**arrays, "labels.kind": kinds, "labels.age": ages}


def write(folder, kind: str, arrays: dict):
    """Writes arrays as the user may have them; returns the path."""
    if kind == "a .npz file":
        np.savez(folder / "data.npz", **arrays)
        return folder / "data.npz"
    if kind == "several .npz files":
        for name, rows in (("1.npz", slice(0, 3)), ("2.npz", slice(3, None))):
            part = {key: x[rows] for key, x in arrays.items()}
            np.savez_compressed(folder / name, **part)
        return folder
    for key, x in arrays.items():
        np.save(folder / f"{key}.npy", x)
    return folder


@pytest.mark.parametrize(
    "kind", ["a .npz file", "several .npz files", ".npy files"]
)
def test_arrays_are_those_of_the_inputs_and_outputs_of_their_names(
    kind, arrays, tmp_path
):
    expected = with_labels(arrays)
    path = write(tmp_path, kind, {**expected, "not_needed": np.zeros(5)})
    found = list(open_directory(path, two_input_model(), batch_size=2))
    x, y = (
        {
            name: np.concatenate([batch[place][name] for batch in found])
            for name in found[0][place]
        }
        for place in (0, 1)
    )
    assert set(x) == {"photo", "side"}
    for name in x:
        np.testing.assert_array_equal(x[name], expected[name])
    assert set(y) == {"kind", "age"}
    for name in y:
        np.testing.assert_array_equal(y[name], expected[f"labels.{name}"])
    assert max(len(batch[0]["side"]) for batch in found) == 2


def test_labels_of_one_output_are_called_labels(tmp_path):
    images, labels = pixels(4, 4, 6, 3), np.array([2, 0, 1, 1])
    np.savez(tmp_path / "x.npz", photo=images, labels=labels)
    ((x, y),) = open_directory(tmp_path, image_model())
    np.testing.assert_array_equal(x["photo"], images)
    np.testing.assert_array_equal(y, labels)


def test_the_only_array_is_the_only_input_whatever_its_name(tmp_path):
    images = pixels(4, 4, 6, 3)
    np.savez(tmp_path / "x.npz", images, labels=np.zeros(4))
    ((x, _),) = open_directory(tmp_path, image_model())
    np.testing.assert_array_equal(x["photo"], images)


def test_an_input_without_an_array_is_named(arrays, tmp_path):
    np.savez(tmp_path / "x.npz", photo=arrays["photo"], sides=arrays["side"])
    error = refused(tmp_path, two_input_model())
    assert "no array for 'side'. It has 'photo', 'sides'" in error


def test_an_output_without_labels_is_named(arrays, tmp_path):
    given = with_labels(arrays)
    del given["labels.age"]
    np.savez(tmp_path / "x.npz", **given)
    assert "lacks those in 'labels.age'" in refused(tmp_path, two_input_model())


def test_all_files_need_the_same_arrays(tmp_path):
    np.savez(tmp_path / "1.npz", photo=pixels(2, 4, 6, 3), labels=np.zeros(2))
    np.savez(tmp_path / "2.npz", photo=pixels(2, 4, 6, 3))
    error = refused(tmp_path, image_model())
    assert "2.npz' lacks 'labels', which '1.npz' has" in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"photo": np.zeros((2, 6, 4, 3))},
            "input 'photo' has samples of shape (6, 4, 3)",
        ),
        (
            {"photo": np.zeros((2, 4, 6, 3)), "labels": np.zeros(3)},
            "the rows are: 'photo' 2, 'labels' 3",
        ),
        ({"photo": np.zeros((0, 4, 6, 3))}, "'photo' 0"),
        (
            {"photo": np.zeros((2, 4, 6, 3)), "labels": np.array(1)},
            "single values in 'labels'",
        ),
        ({"photo": np.array([{"a": 1}])}, "Arrays of objects are not read"),
    ],
    ids=["shape", "rows", "empty", "no row", "objects"],
)
def test_arrays_that_do_not_fit_are_refused(given, message, tmp_path):
    np.savez(tmp_path / "x.npz", **given)
    assert message in refused(tmp_path, image_model())


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_a_file_that_is_broken_is_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    error = refused(tmp_path, image_model())
    assert f"{name}' cannot be read" in error


def test_a_file_of_the_other_kind_is_refused(tmp_path):
    with (tmp_path / "x.npz").open("wb") as stream:
        np.save(stream, np.zeros((2, 4, 6, 3)))
    assert "x.npz' cannot be read" in refused(tmp_path, image_model())


def test_an_archive_of_something_else_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("photo", "text")
    assert "'photo' is no array" in refused(tmp_path, image_model())


# what is there


def test_a_missing_path_is_named(tmp_path):
    error = refused(tmp_path / "nowhere", image_model())
    assert "There is no folder" in error


def test_a_file_has_to_be_a_npz_file(tmp_path):
    (tmp_path / "x.csv").write_text("1,2")
    assert "neither a folder" in refused(tmp_path / "x.csv", image_model())


def test_the_error_of_a_folder_without_data_lists_its_contents(tmp_path):
    for name in ("1.csv", "2.csv", "notes"):
        (tmp_path / name).write_text("")
    (tmp_path / "inner").mkdir()
    error = refused(tmp_path, image_model())
    assert "only: 2 .csv, 1 folders, 1 no ending" in error
    assert ".png" in error
    assert ".npz" in error


def test_the_error_of_an_empty_folder_says_so(tmp_path):
    assert "only: nothing" in refused(tmp_path, image_model())


def test_a_folder_of_two_kinds_is_refused(classes):
    np.save(classes / "photo.npy", np.zeros((2, 4, 6, 3)))
    error = refused(classes, image_model())
    assert "holds .npy, images: it has to be one kind" in error


# labels for metrics


def test_metrics_need_labels(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "x.png")
    model = compiled(image_model())
    data = open_directory(tmp_path, model)
    message = (
        r"no labels.*'sparse_categorical_accuracy'.*a folder for each class"
    )
    with pytest.raises(ValueError, match=message):
        check_labels(data, model)
    check_labels(data, image_model())


def test_there_are_as_many_folders_as_classes(classes):
    model = compiled(image_model(outputs=4))
    data = open_directory(classes, model)
    message = r"has 3 folders of classes \('a', 'b', 'c'\), the model tells 4"
    with pytest.raises(ValueError, match=message):
        check_labels(data, model)
    (classes / "d").mkdir()
    check_labels(open_directory(classes, model), model)


def test_a_single_output_stands_for_two_classes(classes):
    model = compiled(image_model(outputs=1))
    with pytest.raises(ValueError, match="the model tells 2 apart"):
        check_labels(open_directory(classes, model), model)
