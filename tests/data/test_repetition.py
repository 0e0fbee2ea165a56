"""Whether data gives the same samples in each epoch, by what it is."""

import functools
import random

import keras
import numpy as np
import pytest

from keras_cascade.data.random_draws import Generators
from keras_cascade.data.sources import open_data

ROWS = 40
X = np.arange(ROWS, dtype="float32")[:, None]
GLOBAL = np.random.default_rng(0)


def reason_of(data):
    return open_data(data).not_repeatable_because


def helper():
    return GLOBAL.random()


class Holder:
    """A transform that has a generator of its own."""

    def __init__(self, generator):
        self.generator = generator

    def __call__(self):
        return self.generator.random()


def draws():
    """What code draws random numbers from, whatever it does with them."""
    seeds = keras.random.SeedGenerator(0)
    generator = np.random.default_rng(3)
    found = {
        "python": random.random,
        "numpy": np.random.rand,
        "keras": lambda: keras.random.normal((1,)),
        "seeds": lambda: keras.random.normal((1,), seed=seeds),
        "state": np.random.RandomState(0).rand,
        "own": Holder(np.random.default_rng(0)),
        "own Python": Holder(random.Random(0)),
        "list": functools.partial(lambda x: x[0].random(), [generator]),
        "global": helper,
        "closure": lambda: generator.random(),
    }
    return [pytest.param(draw, id=name) for name, draw in found.items()]


class Drawing(keras.utils.PyDataset):
    """Draws a number in one of many entries, and gives the same all the same.

    Of a flip with a small probability nothing else shows.
    """

    num_batches = 5

    def __init__(self, draw):
        super().__init__()
        self.draw = draw

    def __getitem__(self, index):
        if index == 4 and self.draw is not None:
            self.draw()
        return X[8 * index : 8 * index + 8]


@pytest.mark.parametrize("draw", draws())
def test_numbers_that_are_drawn_are_seen(draw):
    assert "random numbers are drawn" in reason_of(Drawing(draw))


@pytest.mark.parametrize(
    "draw", [None, lambda: np.random.default_rng(7).random()]
)
def test_the_same_numbers_each_time_are_no_reason(draw):
    assert reason_of(Drawing(draw)) is None


def test_torch_generators_are_seen():
    torch = pytest.importorskip("torch")
    own = torch.Generator()
    for draw in (
        lambda: torch.rand(()),
        lambda: torch.rand((), generator=own),
    ):
        assert "random numbers are drawn" in reason_of(Drawing(draw))


def test_the_generator_of_a_gpu_is_seen(monkeypatch):
    """A GPU's generator is stood in for: the tests' machines have none."""
    torch = pytest.importorskip("torch")
    states = [torch.zeros(2, dtype=torch.uint8)]
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: states)
    generators = Generators()
    before = generators.states()
    states[0] = torch.ones(2, dtype=torch.uint8)
    assert generators.states() != before


def test_states_are_compared_and_not_changed():
    generators = Generators(Holder(GLOBAL))
    assert generators.states() == generators.states()
    before = generators.states()
    GLOBAL.random()
    assert generators.states() != before


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("where", ["class", "object"])
def test_hooks_between_epochs_are_a_reason(hook, where):
    if where == "class":
        data = type("Own", (Drawing,), {hook: lambda self: None})(None)
    else:
        data = Drawing(None)
        setattr(data, hook, lambda: None)
    assert hook in reason_of(data)


def samplers():
    """The arguments of a DataLoader, and the reason for its refusal."""
    return {
        "in order": ({}, None),
        "in order, last dropped": ({"drop_last": True}, None),
        "shuffled": ({"shuffle": True}, None),
        "shuffled, nothing to drop": (
            {"shuffle": True, "drop_last": True, "batch_size": 10},
            None,
        ),
        "shuffled, last dropped": (
            {"shuffle": True, "drop_last": True},
            "drop_last",
        ),
        "some": ({"sampler": [3, 1, 2]}, None),
        "no batches": ({"batch_size": None}, None),
        "subset": ({"sampler": lambda d: d.SubsetRandomSampler([1, 2])}, None),
        "subset, last dropped": (
            {
                "sampler": lambda d: d.SubsetRandomSampler(range(17)),
                "drop_last": True,
            },
            "drop_last",
        ),
        "weighted": (
            {"sampler": lambda d: d.WeightedRandomSampler([1.0] * 40, 40)},
            "WeightedRandomSampler",
        ),
        "few": (
            {"sampler": lambda d: d.RandomSampler(X, num_samples=16)},
            "draws 16 of 40",
        ),
        "replacement": (
            {"sampler": lambda d: d.RandomSampler(X, replacement=True)},
            "with replacement",
        ),
        "own batches": (
            {"batch_sampler": lambda d: [[1, 2], [3]]},
            "batch_sampler is a list",
        ),
        "collate": (
            {"collate_fn": lambda d: lambda samples: np.stack(samples)},
            "collate_fn",
        ),
    }


@pytest.mark.parametrize("kind", samplers())
def test_loaders_go_by_sampler_and_collate_fn(kind):
    data = pytest.importorskip("torch").utils.data
    arguments, reason = samplers()[kind]
    arguments = {
        name: value(data) if callable(value) else value
        for name, value in arguments.items()
    }
    if "batch_sampler" not in arguments:
        arguments = {"batch_size": 16, **arguments}
    found = reason_of(data.DataLoader(X, **arguments))
    assert found is None if reason is None else reason in found


def test_a_loader_with_an_iterator_of_its_own_is_refused():
    data = pytest.importorskip("torch").utils.data

    class Own(data.DataLoader):
        def __iter__(self):
            return (x + np.random.rand() for x in super().__iter__())

    assert "__iter__" in reason_of(Own(X))


@pytest.mark.parametrize("method", ["__getitem__", "__getitems__"])
def test_torch_data_sets_are_read_as_torch_reads_them(method):
    data = pytest.importorskip("torch").utils.data

    class Flips(data.Dataset):
        def __len__(self):
            return ROWS

        def __getitem__(self, index):
            return X[index]

    def flipped(self, index):
        # Seeded anew each time: no state is left.
        sign = np.random.default_rng().choice([-1, 1])
        several = isinstance(index, list)
        return [X[i] * sign for i in index] if several else X[index] * sign

    setattr(Flips, method, flipped)
    assert "differs when read again" in reason_of(data.DataLoader(Flips()))


def test_streams_without_an_index_are_a_reason():
    data = pytest.importorskip("torch").utils.data

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(X)

    assert "no index" in reason_of(data.DataLoader(Stream()))


def test_grain_goes_by_what_its_maps_draw():
    grain = pytest.importorskip("grain")
    entries = grain.MapDataset.source(list(X))
    assert reason_of(entries.batch(8)) is None
    # By seed and number: the same in each epoch, live as well.
    seeded = entries.seed(1).random_map(lambda x, rng: x + rng.normal())
    assert reason_of(seeded.batch(8)) is None
    drawn = entries.map(lambda x: x + np.random.rand())
    assert "random numbers" in reason_of(drawn.batch(8))
    no_index = entries.batch(8).to_iter_dataset()
    assert "no index" in reason_of(no_index)
