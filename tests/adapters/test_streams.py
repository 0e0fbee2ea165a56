"""Open widths are shared among streams; fitting shapes stay untouched."""

import keras
import pytest
from keras import layers

from keras_cascade.adapters import DenseAdapter
from keras_cascade.adapters.streams import Stream, Target
from keras_cascade.adapters.streams import adapt_streams as adapt


def adapt_streams(given, extras, choices, target):
    """Adapts one stream for each tensor, all to one target."""
    streams = [
        Stream(name, name, choices[name], target, name in extras)
        for name in given
    ]
    return adapt(streams, given)


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
def test_open_widths_are_shared_evenly_rest_to_the_first(width, expected):
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


def test_merged_streams_each_get_the_full_width():
    given = streams(a=(8,), b=(4,), side=(2,))
    choices = {"a": "auto", "b": "auto", "side": None}
    found = adapt_streams(given, ["side"], choices, to(6, False))
    assert widths(found) == [4, 4, 2]
    assert found["b"] is given["b"]


def test_fitting_streams_stay_untouched():
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


def test_a_choice_of_none_passes_the_tensor():
    given = streams(a=(3, 3, 2))
    assert adapt_streams(given, [], {"a": None}, Target()) == given


def test_an_adapter_has_the_name_of_its_stream():
    given = {"a": keras.Input((6,), name="features")}
    choices = {"a": layers.Dense(3, name="mine")}
    found = adapt_streams(given, [], choices, Target())
    model = keras.Model(given["a"], found["a"])
    assert [x.name for x in model.layers] == ["features", "a"]


def test_maps_that_are_concatenated_share_the_channels():
    given = streams(a=(4, 4, 3), b=(8, 8, 5))
    target = Target("expert", (4, 4, 7))
    found = adapt_streams(given, [], dict.fromkeys(given, "auto"), target)
    assert [x.shape[1:] for x in found.values()] == [(4, 4, 4), (4, 4, 3)]


def test_streams_of_several_targets_do_not_share():
    given = streams(a=(8,), b=(8,))
    several = [
        Stream("a", "a", "auto", Target("one", (4,))),
        Stream("b", "b", "auto", Target("other", (6,))),
    ]
    assert widths(adapt(several, given)) == [4, 6]


def test_maps_of_two_formats_do_not_go_together():
    stream = Stream(
        "a",
        "a",
        "auto",
        Target("expert", (3, 4, 4), data_format="channels_first"),
        data_format="channels_last",
    )
    with pytest.raises(ValueError) as caught:
        adapt([stream], streams(a=(8, 8, 5)))
    assert str(caught.value) == (
        "'a' (8, 8, 5) is a map in 'channels_last', and 'expert' expects "
        "(3, 4, 4) in 'channels_first'. Use networks of one format, or give "
        "it a layer that moves the axis, such as adapters={'a': "
        "keras.layers.Permute((3, 1, 2))}."
    )


def test_nothing_left_is_an_error_with_the_sum():
    given = streams(a=(8,), side=(4,))
    with pytest.raises(ValueError, match=r"'a': 4 \('side'\) of the 4 feat"):
        adapt_streams(given, ["side"], {"a": "auto", "side": None}, to(4))
