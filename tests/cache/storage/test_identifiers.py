"""Identifiers are found as in a dict."""

import numpy as np
import pytest

from keras_cascade.cache.storage import identifiers
from keras_cascade.cache.storage.identifiers import IDS, IdentifierIndex
from tests.cache.storage.samples import digests

# No backend takes part in it.
pytestmark = pytest.mark.once


def as_bytes(ids):
    return [bytes(x) for x in ids.view(np.uint8).reshape(-1, 16)]


@pytest.mark.parametrize("few", [0, 40, 4096])
def test_a_dict_says_the_same(monkeypatch, few):
    monkeypatch.setattr(identifiers, "_FEW", few)
    random = np.random.default_rng(0)
    ids = digests(200)
    index, reference, position = IdentifierIndex(), {}, 0
    for count in (1, 7, 100, 3, 50, 0, 2):
        batch = random.choice(ids, count)
        new = index.unknown(batch)
        expected = list(dict.fromkeys(as_bytes(batch)))
        expected = [x for x in expected if x not in reference]
        assert as_bytes(batch[new]) == expected
        index.add(batch[new], position)
        for key in expected:
            reference[key] = position
            position += 1
        found = [reference.get(x, -1) for x in as_bytes(ids)]
        assert index.find(ids).tolist() == found


@pytest.mark.parametrize("few", [0, 4096])
def test_of_equal_identifiers_the_first_counts(monkeypatch, few):
    monkeypatch.setattr(identifiers, "_FEW", few)
    first, second = digests(2)[:, None].view(IDS)
    index = IdentifierIndex()
    index.add(np.concatenate([first, second, first]), 5)
    index.add(second, 8)
    assert index.find(np.concatenate([first, second])).tolist() == [5, 6]


@pytest.mark.parametrize("few", [0, 4096])
def test_bytes_of_zero_are_bytes_like_others(monkeypatch, few):
    monkeypatch.setattr(identifiers, "_FEW", few)
    ends = [b"", b"\0a", b"a", b"a\0a", b"aa", b"\xff" * 16]
    ids = np.frombuffer(b"".join(x.ljust(16, b"\0") for x in ends), IDS)
    index = IdentifierIndex()
    assert index.unknown(ids).tolist() == [0, 1, 2, 3, 4, 5]
    index.add(ids, 0)
    assert index.find(ids[::-1]).tolist() == [5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize("few", [0, 4096])
def test_rows_are_forgotten_from_a_position_on(monkeypatch, few):
    monkeypatch.setattr(identifiers, "_FEW", few)
    index = IdentifierIndex()
    index.add(digests(6), 0)
    index.truncate(4)
    assert index.find(digests(6)).tolist() == [0, 1, 2, 3, -1, -1]
