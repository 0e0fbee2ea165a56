"""All kinds of data give the same batches of inputs, or a clear error."""

import importlib.util

import keras
import numpy as np
import pytest

from keras_cascade import data

X = np.arange(30, dtype="float32").reshape(10, 3)
Y = np.arange(10)
# The batches that every kind of data gives.
EXPECTED = [X[:4], X[4:8], X[8:]]


class Batches(keras.utils.PyDataset):
    """Batches by index; without end where `size` is None."""

    def __init__(self, size: int | None = 3):
        super().__init__()
        self.size = size

    @property
    def num_batches(self):
        return self.size

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return X[rows], Y[rows]


class Reiterable:
    """Starts again each time, of unknown length."""

    def __iter__(self):
        return iter([(x, x[:, 0], x[:, 0]) for x in EXPECTED])


def generator():
    yield from EXPECTED


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


def torch_loader():
    torch = pytest.importorskip("torch")
    arrays = torch.from_numpy(X.copy()), torch.from_numpy(Y.copy())
    dataset = torch.utils.data.TensorDataset(*arrays)
    return torch.utils.data.DataLoader(dataset, batch_size=4)


def grain_source():
    grain = pytest.importorskip("grain")
    return grain.MapDataset.source(
        [(x, int(y)) for x, y in zip(X, Y, strict=True)]
    )


def grain_map():
    return grain_source().batch(4)


def grain_iter():
    return grain_map().to_iter_dataset()


def grain_loader():
    grain = pytest.importorskip("grain")
    return grain.DataLoader(
        data_source=grain_source(),
        sampler=grain.samplers.SequentialSampler(
            10, grain.sharding.NoSharding()
        ),
        operations=[grain.transforms.Batch(4)],
        worker_count=0,
    )


# What makes the data, whether it gives two passes, its known length.
KINDS = {
    "array": (lambda: X, True, 3),
    "tensor": (lambda: keras.ops.convert_to_tensor(X), True, 3),
    "x and y": (lambda: (X, Y), True, 3),
    "x, y and weights": (lambda: (X, Y, Y), True, 3),
    "x alone in a tuple": (lambda: (X,), True, 3),
    "PyDataset": (Batches, True, 3),
    "generator": (generator, False, None),
    "iterator": (lambda: iter(EXPECTED), False, None),
    "iterator of lists x, y": (
        lambda: iter([[x, x[:, 0]] for x in EXPECTED]),
        False,
        None,
    ),
    "iterable": (Reiterable, True, None),
    "grain MapDataset": (grain_map, True, 3),
    "grain IterDataset": (grain_iter, True, None),
    "grain DataLoader": (grain_loader, True, None),
}
OF_BACKENDS = {
    "tensorflow": (tf_dataset, True, 3),
    "torch": (torch_loader, True, 3),
}


def check_kind(make, reiterable: bool, length: int | None):
    source = make()
    assert data.is_reiterable(source) is reiterable
    assert data.length(source, 4) == length
    for _ in range(1 + reiterable):
        check_batches(data.batches(source, 4))


def check_batches(found):
    found = list(found)
    assert [type(x) for x in found] == [np.ndarray] * 3
    for batch, expected in zip(found, EXPECTED, strict=True):
        np.testing.assert_array_equal(batch, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_data_gives_the_same_inputs(kind: str):
    check_kind(*KINDS[kind])


@pytest.mark.skipif(
    keras.backend.backend() not in OF_BACKENDS,
    reason="JAX has no data loader of its own",
)
def test_the_loader_of_the_backend_gives_the_same_inputs():
    check_kind(*OF_BACKENDS[keras.backend.backend()])


@pytest.mark.interop
@pytest.mark.parametrize("framework", OF_BACKENDS)
def test_the_loader_of_another_framework_gives_the_same_inputs(framework):
    check_kind(*OF_BACKENDS[framework])


def test_several_inputs_keep_their_structure():
    named = {"image": X, "extra": Y}
    first = next(data.batches((named, Y), 4))
    assert sorted(first) == ["extra", "image"]
    np.testing.assert_array_equal(first["image"], X[:4])
    first = next(data.batches([X, Y], 4))
    assert isinstance(first, list)
    np.testing.assert_array_equal(first[1], Y[:4])
    first = next(data.batches(iter([(named, Y)])))
    np.testing.assert_array_equal(first["extra"], Y)


# What has labels, which are the numbers of the rows.
LABELLED = ("x and y", "x, y and weights", "PyDataset", "grain MapDataset")


def check_labels(make):
    found = list(data.labelled_batches(make(), 4))
    check_batches([x for x, _ in found])
    for (_, y), expected in zip(found, [Y[:4], Y[4:8], Y[8:]], strict=True):
        assert type(y) is np.ndarray
        np.testing.assert_array_equal(y, expected)


@pytest.mark.parametrize("kind", LABELLED)
def test_every_kind_of_data_gives_the_same_labels(kind: str):
    check_labels(KINDS[kind][0])


@pytest.mark.parametrize("kind", ["grain IterDataset", "grain DataLoader"])
def test_grains_iterators_give_the_same_labels(kind: str):
    check_labels(KINDS[kind][0])


@pytest.mark.skipif(
    keras.backend.backend() not in OF_BACKENDS,
    reason="JAX has no data loader of its own",
)
def test_the_loader_of_the_backend_gives_the_same_labels():
    check_labels(OF_BACKENDS[keras.backend.backend()][0])


def test_generators_give_the_labels_of_each_batch():
    batches = [[x, {"kind": x[:, 0], "size": x[:, 1:]}] for x in EXPECTED]
    for (x, y), part in zip(
        data.labelled_batches(iter(batches)), EXPECTED, strict=True
    ):
        np.testing.assert_array_equal(x, part)
        np.testing.assert_array_equal(y["kind"], part[:, 0])
        np.testing.assert_array_equal(y["size"], part[:, 1:])


@pytest.mark.parametrize("kind", ["array", "x alone in a tuple", "generator"])
def test_data_without_labels_gives_none(kind: str):
    found = list(data.labelled_batches(KINDS[kind][0](), 4))
    check_batches([x for x, _ in found])
    assert [y for _, y in found] == [None] * 3


def test_labels_are_read_only_where_they_are_asked_for():
    unequal = (X, Y[:9])
    assert len(list(data.batches(unequal, 4))) == 3
    with pytest.raises(ValueError, match=r"labels where.*\[10, 9\]"):
        data.labelled_batches(unequal, 4)
    text = iter([(X, ["a", "b"])])
    with pytest.raises(TypeError, match="type str"):
        list(data.labelled_batches(text))


def test_arrays_are_cut_by_32_unless_told():
    assert [len(x) for x in data.batches(np.zeros((70, 1)))] == [32, 32, 6]


@pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="a torch tensor"
)
def test_a_tensor_with_a_gradient_or_of_bfloat16_is_read():
    import torch

    tensor = torch.ones((2, 3), dtype=torch.bfloat16, requires_grad=True)
    np.testing.assert_array_equal(data.to_numpy(tensor), np.ones((2, 3)))


@pytest.mark.parametrize(
    ("wrong", "names"),
    [
        (3, "type int"),
        (None, "type NoneType"),
        ("images/", "type str"),
        (generator, "Call the function"),
        ([1.0, 2.0], "type float"),
        ({"image": "images/"}, "type str"),
        (keras.KerasTensor((4, 3)), "KerasTensor"),
    ],
    ids=["int", "None", "text", "function", "list", "dict", "symbolic"],
)
def test_an_unknown_kind_is_an_error_that_lists_what_is_accepted(wrong, names):
    with pytest.raises(TypeError, match=names) as caught:
        data.batches(wrong)
    assert "tf.data.Dataset" in str(caught.value)


@pytest.mark.parametrize(
    ("empty", "message"),
    [
        (X[:0], "no rows"),
        ([], "no rows"),
        (iter(()), "no batch"),
        (Batches(0), "no batch"),
    ],
    ids=["array", "list", "iterator", "PyDataset"],
)
def test_empty_data_is_an_error(empty, message: str):
    with pytest.raises(ValueError, match=message):
        list(data.batches(empty))


def test_data_without_end_is_an_error():
    with pytest.raises(ValueError, match="Batches never ends"):
        data.batches(Batches(None))
    if keras.backend.backend() == "tensorflow":
        with pytest.raises(ValueError, match="never ends"):
            data.batches(tf_dataset().repeat())
    with pytest.raises(ValueError, match="never ends"):
        data.batches(grain_map().repeat())


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ([X, X[:3]], ValueError, r"received \[10, 3\]"),
        ((X, Y, Y, Y), ValueError, "4 elements"),
        ([(X, Y), (X, Y)], TypeError, "list of tuples"),
        (np.array(1.0), ValueError, "rank 0"),
    ],
    ids=["lengths", "tuple", "list", "rank"],
)
def test_ambiguous_arrays_are_an_error(wrong, error, message: str):
    with pytest.raises(error, match=message):
        data.batches(wrong)


def test_a_batch_size_below_one_is_an_error():
    with pytest.raises(ValueError, match="received 0"):
        data.batches(X, 0)


def test_a_batch_that_holds_no_array_is_an_error():
    with pytest.raises(TypeError, match="type str"):
        list(data.batches(iter(["images/1.png"])))


def taken(stream, count):
    return [next(stream) for _ in range(count)]


@pytest.mark.parametrize(
    "make",
    [Batches, Reiterable, tf_dataset, torch_loader],
    ids=lambda make: make.__name__,
)
def test_batches_to_train_on_come_in_order_over_and_over(make):
    for number, (x, y, _) in enumerate(taken(data.training_batches(make()), 7)):
        expected = EXPECTED[number % 3]
        np.testing.assert_array_equal(x, expected)
        assert len(y) == len(expected)


def test_arrays_to_train_on_are_shuffled_for_each_pass_in_whole_batches():
    before = np.random.get_state()[1].copy()
    given = {"a": X, "b": Y}, Y, X[:, 0]
    stream = taken(data.training_batches(given, 4, seed=1), 20)
    again = taken(data.training_batches(given, 4, seed=1), 20)
    other = taken(data.training_batches(given, 4, seed=2), 20)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    orders = [
        [batch[1].tolist() for batch in s] for s in (stream, again, other)
    ]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0][:2] != orders[0][2:4]
    for first, second in zip(orders[0][::2], orders[0][1::2], strict=True):
        assert len(set(first + second)) == 8
    for x, y, weights in stream:
        np.testing.assert_array_equal(x["a"], X[y])
        np.testing.assert_array_equal(x["b"], y)
        np.testing.assert_array_equal(weights, X[y, 0])
    ((x, y, weights),) = taken(data.training_batches(X, 32), 1)
    assert (len(x), y, weights) == (10, None, None)


def test_a_data_set_without_end_can_be_trained_on():
    stream = data.training_batches(Batches(size=None))
    np.testing.assert_array_equal(next(stream)[0], X[:4])


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (generator(), ValueError, "generator can be read only once"),
        ([], ValueError, "has no rows"),
        (X[:0], ValueError, "has no rows"),
        (Batches(size=0), ValueError, "gave no batch"),
        ((X, Y[:3]), ValueError, r"\[10, 3\]"),
        ("text", TypeError, "object of type str"),
    ],
)
def test_data_that_cannot_be_trained_on_is_an_error(wrong, error, message):
    with pytest.raises(error, match=message):
        next(data.training_batches(wrong))
