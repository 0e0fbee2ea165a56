"""A cache is opened where the user says, or where there is room."""

from types import SimpleNamespace

import numpy as np
import psutil
import pytest

import keras_cascade as kc
from tests.cache.storage.samples import digests


def test_features_in_memory_take_a_quarter_of_the_free_memory(monkeypatch):
    free = SimpleNamespace(available=4000)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: free)
    cache = kc.FeatureCache()
    assert cache.open().room() == 1000
    assert cache.is_in_memory


def test_a_temporary_folder_goes_with_the_cache():
    cache = kc.FeatureCache()
    cache.open()
    folder = cache.move_to_disk().path
    assert folder.exists() and not cache.is_in_memory
    del cache
    assert not folder.exists()


def test_its_repr_says_where_and_how_much():
    cache = kc.FeatureCache(dtype="float16", max_bytes=3_000_000, key="mine")
    assert repr(cache) == (
        "<FeatureCache in memory, float16: 0 rows read or written, 0 bytes, "
        "at most 3 MB, key 'mine'>"
    )
    cache = kc.FeatureCache(dtype="float16")
    column = cache.open().column("ab", (4,), "float16", {})
    rows = np.zeros((3, 4), "float16")
    with cache.open().writing():
        column.append(digests(3), rows)
    # Eight bytes a row, and the sixteen of its hash.
    assert "3 rows read or written, 72 bytes" in repr(cache)


@pytest.mark.parametrize("argument", ["directory", "max_bytes"])
def test_features_do_not_move_from_where_the_user_put_them(argument, tmp_path):
    value = {"directory": tmp_path, "max_bytes": 1000}[argument]
    cache = kc.FeatureCache(**{argument: value})
    cache.open()
    assert cache.move_to_disk() is None


@pytest.mark.parametrize("cache", ["", 3, "force", object()])
def test_other_values_of_cache_features_are_an_error(
    compiled, images, labels, cache, tmp_path
):
    if isinstance(cache, str) and cache:
        (tmp_path / cache).mkdir()
        (tmp_path / cache / "mine.txt").write_text("mine")
        cache = tmp_path / cache
    with pytest.raises((TypeError, ValueError)):
        compiled().fit(images, labels, verbose=0, cache_features=cache)


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": "int8"},
        {"max_bytes": 0},
        {"max_bytes": 1.5},
        {"key": 7},
        {"key": ""},
        {"directory": 3},
    ],
)
def test_arguments_of_a_cache_are_checked_at_once(arguments):
    name = next(iter(arguments))
    with pytest.raises((TypeError, ValueError), match=f"FeatureCache\\({name}"):
        kc.FeatureCache(**arguments)
