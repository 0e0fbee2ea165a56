"""Finds out whether data gives the same samples in each epoch.

Known by what the data is: its index, its sampler, its hooks. What its own code
does is seen by reading some entries twice: they differ, or random numbers are
drawn meanwhile.

Tested by `tests/data/test_repetition.py`.
"""

import hashlib
import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import keras
import numpy as np

from keras_cascade.data.arrays import is_array, to_numpy
from keras_cascade.data.random_draws import Generators

# How many entries are read twice before a training: batches, or samples.
_BATCHES, _SAMPLES = 8, 32
# The share of them that is read again before each further epoch.
_SHARE = 4


@dataclass(frozen=True)
class Index:
    """Entries of data by number.

    Attributes:
        count: The number of entries.
        read: Returns an entry as the data gives it, in a batch.
        looks: How many entries to look at.
        owners: The objects whose code reads an entry.
    """

    count: int
    read: Callable[[int], Any]
    looks: int
    owners: tuple[object, ...]


@dataclass(frozen=True)
class Order:
    """How data comes in each epoch.

    Attributes:
        shuffled: What `fit(shuffle=True)` puts in another order in each
            epoch: `"samples"`, `"batches"` or `"nothing"`.
        index: The entries, if the data reads them by number.
        varies_because: The reason why the samples are not known to be the
            same in each epoch, by what the data is; None if they are.
    """

    shuffled: str
    index: Index | None = None
    varies_because: str | None = None


class Looks:
    """Reads some entries, and later again, to see that they are the same.

    Args:
        index: The entries.
    """

    def __init__(self, index: Index):
        self._index = index
        numbers = np.linspace(0, index.count - 1, index.looks)
        self._numbers = np.unique(numbers.astype(int)).tolist()
        self._next = itertools.cycle(self._numbers)
        self._seen: dict[int, str] = {}

    def entries(self) -> list[Any]:
        """Returns the entries that are looked at."""
        return [self._index.read(number) for number in self._numbers]

    def why_not(self) -> str | None:
        """Reads entries twice; returns why they vary, or None."""
        self._seen = {}
        return self._compare(self._numbers) or self._compare(self._numbers)

    def changed(self) -> str | None:
        """Reads some entries again; returns how they changed, or None."""
        count = -(-len(self._numbers) // _SHARE)
        return self._compare([next(self._next) for _ in range(count)])

    @cached_property
    def generators(self) -> Generators:
        """The generators that reading an entry may draw from."""
        return Generators(*self._index.owners)

    def _compare(self, numbers: list[int]) -> str | None:
        generators = self.generators
        before = generators.states()
        for number in numbers:
            content = _content(self._index.read(number))
            if self._seen.setdefault(number, content) != content:
                return f"its entry {number} differs when read again"
        if generators.states() != before:
            return "random numbers are drawn when its entries are read"
        return None


def order_of(data: Any) -> Order:
    """Returns how data comes in each epoch, by its type."""
    if isinstance(data, keras.utils.PyDataset):
        return _order_of_py_dataset(data)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.utils.data.DataLoader):
        return _order_of_loader(data)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return Order("nothing", _index(data, len(data), _BATCHES))
    return Order("samples", None, "it has no index")


def _order_of_py_dataset(data: Any) -> Order:
    for hook in ("on_epoch_begin", "on_epoch_end"):
        own = getattr(getattr(data, hook), "__func__", None)
        if own is not getattr(keras.utils.PyDataset, hook):
            return Order(
                "batches", None, f"its {hook} may change what it gives"
            )
    return Order("batches", _index(data, data.num_batches or 1, _BATCHES))


def _index(data: Any, count: int, looks: int) -> Index:
    return Index(count, data.__getitem__, looks, (data,))


def _order_of_loader(loader: Any) -> Order:
    from torch.utils import data as torch_data

    if isinstance(loader.dataset, torch_data.IterableDataset):
        return Order("samples", None, "its data set has no index")
    sampler = getattr(loader.batch_sampler, "sampler", loader.sampler)
    in_order = type(sampler) in (torch_data.SequentialSampler, list, range)
    shuffled = "nothing" if in_order else "samples"
    if reason := next(_doubts(loader, sampler, in_order), None):
        return Order(shuffled, None, reason)

    def read(number: int) -> Any:
        if loader.batch_size is None:
            return loader.collate_fn(loader.dataset[number])
        return loader.collate_fn(_fetch(loader.dataset, number))

    count = len(loader.dataset)
    index = Index(count, read, _SAMPLES, (loader.dataset,))
    return Order(shuffled, index)


def _doubts(loader: Any, sampler: Any, in_order: bool) -> Iterator[str]:
    """Yields the reasons why a torch DataLoader may give other samples."""
    from torch.utils import data as torch_data

    if type(loader).__iter__ is not torch_data.DataLoader.__iter__:
        yield f"{type(loader).__name__} has an __iter__ of its own"
    batches = type(loader.batch_sampler)
    if batches not in (torch_data.BatchSampler, type(None)):
        yield f"its batch_sampler is a {batches.__qualname__}"
    if not in_order:
        yield from _doubts_of_sampler(loader, sampler)
    if loader.collate_fn not in (
        torch_data.default_collate,
        torch_data.default_convert,
    ):
        name = getattr(loader.collate_fn, "__qualname__", "of its own")
        yield f"its collate_fn ({name}) may change samples"


def _doubts_of_sampler(loader: Any, sampler: Any) -> Iterator[str]:
    from torch.utils import data as torch_data

    kind = type(sampler)
    known = torch_data.RandomSampler, torch_data.SubsetRandomSampler
    if kind not in known:
        yield f"its sampler is a {kind.__qualname__}"
    elif kind is torch_data.RandomSampler:
        if sampler.replacement:
            yield "its RandomSampler draws with replacement"
        if sampler.num_samples != len(sampler.data_source):
            yield (
                f"its RandomSampler draws {sampler.num_samples} of "
                f"{len(sampler.data_source)} samples"
            )
    size = getattr(loader.batch_sampler, "batch_size", 1)
    if loader.drop_last and len(sampler) % size:
        yield "drop_last leaves out other samples in each epoch"


def _fetch(dataset: Any, number: int) -> list[Any]:
    # As torch does: some data sets augment whole lists of samples.
    if getattr(dataset, "__getitems__", None):
        return dataset.__getitems__([number])
    return [dataset[number]]


def _content(entry: object) -> str:
    found = hashlib.sha256()
    for leaf in keras.tree.flatten(entry):
        array = to_numpy(leaf) if is_array(leaf) else np.asarray(leaf)
        found.update(f"{array.dtype} {array.shape}".encode())
        is_object = array.dtype.kind == "O"
        found.update(
            repr(array.tolist()).encode() if is_object else array.tobytes()
        )
    return found.hexdigest()
