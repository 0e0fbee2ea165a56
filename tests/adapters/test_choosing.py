"""Widths that are open are shared out; shapes that fit stay untouched."""

import keras
import pytest
from keras import layers

from keras_cascade.adapters import DenseAdapter
from keras_cascade.adapters.choosing import Target, adapt_streams


def streams(**shapes):
    return {n: keras.Input(shape, name=n) for n, shape in shapes.items()}


def widths(found):
    return [x.shape[-1] for x in found.values()]


def to(width, concatenated=True):
    return Target("expert", (width,), concatenated)


AUTO = {"a": "auto", "b": "auto", "c": "auto"}


@pytest.mark.parametrize(
    ("width", "expected"), [(9, [3, 3, 3]), (11, [5, 3, 3]), (3, [1, 1, 1])]
)
def test_open_widths_are_shared_evenly_the_rest_to_the_first(width, expected):
    given = streams(a=(8,), b=(8,), c=(8,))
    assert widths(adapt_streams(given, [], AUTO, to(width))) == expected


def test_fixed_widths_and_extra_inputs_are_taken_first():
    given = streams(a=(8,), b=(8,), c=(8,), side=(2,))
    choices = {"a": DenseAdapter(5), "b": "auto", "c": None, "side": None}
    found = adapt_streams(given, ["side"], choices, to(20))
    assert widths(found) == [5, 5, 8, 2]


def test_an_adapter_with_an_open_width_is_settled_and_stays_itself():
    given = streams(a=(8,), b=(8,))
    template = DenseAdapter(None, "tanh")
    choices = {"a": template, "b": DenseAdapter(3)}
    found = adapt_streams(given, [], choices, to(10))
    assert widths(found) == [7, 3]
    assert template.units is None


def test_where_streams_are_merged_each_gets_the_full_width():
    given = streams(a=(8,), b=(4,), side=(2,))
    choices = {"a": "auto", "b": "auto", "side": None}
    found = adapt_streams(given, ["side"], choices, to(6, False))
    assert widths(found) == [4, 4, 2]
    assert found["b"] is given["b"]


def test_what_fits_stays_untouched():
    given = streams(a=(6,))
    assert adapt_streams(given, [], {"a": "auto"}, to(6)) == given
    maps = streams(a=(4, 4, 3))
    target = Target("expert", (4, 4, 3))
    assert adapt_streams(maps, [], {"a": "auto"}, target) == maps


def test_a_map_becomes_a_vector_of_the_width_that_is_left():
    given = streams(a=(4, 4, 3), b=(5,))
    choices = {"a": "auto", "b": None}
    found = adapt_streams(given, [], choices, to(12))
    assert [x.shape for x in found.values()] == [(None, 7), (None, 5)]


def test_without_a_target_everything_is_pooled_to_a_vector():
    given = streams(a=(6,), b=(5, 4), c=(3, 3, 2), d=(2, 2, 2, 7))
    found = adapt_streams(given, [], dict.fromkeys(given, "auto"), Target())
    assert [x.shape for x in found.values()] == [
        (None, 6),
        (None, 4),
        (None, 2),
        (None, 7),
    ]


def test_none_passes_what_there_is():
    given = streams(a=(3, 3, 2))
    assert adapt_streams(given, [], {"a": None}, Target()) == given


def test_an_adapter_in_the_block_has_the_name_of_its_tap():
    found = adapt_streams(
        streams(a=(6,)), [], {"a": layers.Dense(3, name="mine")}, Target()
    )
    block = found["a"]._keras_history.operation
    assert [x.name for x in block.layers] == ["a_input", "a"]


def test_a_tap_may_have_the_name_of_anothers_input():
    given = streams(a=(6,), a_input=(5,))
    choices = {"a": DenseAdapter(3), "a_input": DenseAdapter(2)}
    assert widths(adapt_streams(given, [], choices, Target())) == [3, 2]


def test_a_vector_does_not_become_a_map_by_itself():
    with pytest.raises(ValueError) as caught:
        adapt_streams(
            streams(a=(6,)), [], {"a": "auto"}, Target("expert", (4, 4, 3))
        )
    assert str(caught.value) == (
        "No automatic adapter takes 'a' (6,) to the input (4, 4, 3) of "
        "'expert'. Give it a layer that does, adapters={'a': layer}."
    )


def test_nothing_left_is_an_error_with_the_sum():
    given = streams(a=(8,), side=(4,))
    with pytest.raises(ValueError, match=r"'a': 4 \('side'\) of the 4 feat"):
        adapt_streams(given, ["side"], {"a": "auto", "side": None}, to(4))
