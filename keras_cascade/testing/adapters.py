"""Checks that an adapter behaves as cascades require.

Tested by `tests/testing/test_checks.py`.
"""

import inspect
from collections.abc import Sequence
from typing import NamedTuple

import keras
import numpy as np

from keras_cascade._reporting.messages import listed
from keras_cascade.adapters import Adapter
from keras_cascade.adapters.adapter import LayerArguments
from keras_cascade.build import build_cascade
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.testing.checks import (
    expect,
    expect_close,
    expect_equal,
    outputs,
    reloaded,
    run,
)


def check_adapter(
    adapter: keras.Layer,
    input_shape: Sequence[int] = (8,),
    samples: int = 64,
    seed: int = 0,
    data: np.ndarray | None = None,
    labels: np.ndarray | None = None,
) -> list[str]:
    """Checks that an adapter of yours behaves as cascades require.

    Its config makes an equal adapter, a sample's features do not depend on
    the rest of the batch, saving and loading keeps the outputs, `adapt` alone
    learns the same as in a cascade, and if it has a `to_plain`, the stock
    layers give the same outputs.

    Args:
        adapter: An adapter, or another Keras layer, that has not been built.
            It is not changed.
        input_shape: The shape of a sample. Defaults to `(8,)`.
        samples: The number of random samples. Defaults to `64`.
        seed: The seed of the random samples. Defaults to `0`.
        data: Samples to use instead of random ones, for an adapter that takes
            only some numbers, such as probabilities. Defaults to `None`.
        labels: The labels of the samples, for an adapter that learns from
            labels. Defaults to `None`.

    Returns:
        The names of the checks that were run.

    Raises:
        CheckError: If a check fails.
        TypeError: If it is no layer.

    Example:
        >>> check_adapter(keras_cascade.adapters.PCAAdapter(2))[0]
        'config_makes_an_equal_adapter'
    """
    if not isinstance(adapter, keras.Layer):
        raise TypeError(
            "check_adapter(adapter) takes an adapter or a Keras layer; "
            f"received {adapter!r} of type {type(adapter).__name__}."
        )
    if data is None:
        rng = np.random.default_rng(seed)
        data = rng.normal(size=(samples, *input_shape)).astype("float32")
    checks = [
        config_makes_an_equal_adapter,
        adapter_passed_in_stays_as_it_is,
        samples_are_treated_one_by_one,
        shape_is_the_one_announced,
        save_and_load_keep_the_answers,
        frozen_adapter_has_nothing_to_train,
    ]
    if isinstance(adapter, Adapter):
        if adapter.needs_data:
            checks.append(it_learns_the_same_alone)
        if type(adapter).to_plain is not Adapter.to_plain:
            checks.append(stock_layers_give_the_same)
    return run(checks, adapter, Samples(data, labels))


class Samples(NamedTuple):
    """The samples, and labels if any, that an adapter is checked on."""

    x: np.ndarray
    labels: np.ndarray | None


def config_makes_an_equal_adapter(
    adapter: keras.Layer, samples: Samples
) -> None:
    """Checks that a config has all arguments, and makes an equal config."""
    config = adapter.get_config()
    missing = [name for name in _own_arguments(adapter) if name not in config]
    expect(
        not missing,
        f"{type(adapter).__name__}: get_config() leaves out {listed(missing)} "
        "of the constructor's arguments, so that copies and files have the "
        "default.",
    )
    again = type(adapter).from_config(dict(config)).get_config()
    expect(
        again == config,
        f"{type(adapter).__name__}: get_config() leaves something out: "
        f"{config} became {again}.",
    )


def adapter_passed_in_stays_as_it_is(
    adapter: keras.Layer, samples: Samples
) -> None:
    """Checks that a cascade works on a copy."""
    before = (adapter.built, adapter.get_config())
    _cascade(adapter, samples)
    expect(
        before == (adapter.built, adapter.get_config()),
        f"{type(adapter).__name__}: building a cascade changed the adapter "
        "that was passed in; from_config must not share state.",
    )


def samples_are_treated_one_by_one(
    adapter: keras.Layer, samples: Samples
) -> None:
    """Checks that features do not depend on the rest of the batch."""
    cascade = _cascade(adapter, samples)
    together = outputs(cascade, samples.x)[:3]
    alone = np.concatenate(
        [outputs(cascade, samples.x[i : i + 1]) for i in range(3)]
    )
    kind = type(adapter).__name__
    what = f"{kind}: in inference a sample's features depend on its batch"
    expect_close(alone, together, what)


def shape_is_the_one_announced(adapter: keras.Layer, samples: Samples) -> None:
    """Checks that the output has the symbolic shape."""
    cascade = _cascade(adapter, samples)
    found, announced = outputs(cascade, samples.x).shape, cascade.output_shape
    expect(
        found[1:] == tuple(announced[1:]),
        f"{type(adapter).__name__}: compute_output_shape says {announced}, "
        f"call gives {found}.",
    )


def save_and_load_keep_the_answers(
    adapter: keras.Layer, samples: Samples
) -> None:
    """Checks that a file keeps what the adapter has learned."""
    cascade = _cascade(adapter, samples)
    again = reloaded(cascade)
    what = f"{type(adapter).__name__}: outputs before and after save and load"
    expect_equal(outputs(again, samples.x), outputs(cascade, samples.x), what)


def frozen_adapter_has_nothing_to_train(
    adapter: keras.Layer, samples: Samples
) -> None:
    """Checks that `trainable=False` reaches every weight."""
    cascade = _cascade(adapter, samples)
    layer = cascade.adapters["output"]
    layer.trainable = False
    left = [variable.path for variable in layer.trainable_variables]
    expect(
        not left,
        f"{type(adapter).__name__}: frozen, it still trains {left}.",
    )


def it_learns_the_same_alone(adapter: Adapter, samples: Samples) -> None:
    """Checks that `adapt` on features does what a cascade does with them."""
    alone = adapter.copy().adapt((samples.x, samples.labels))
    what = (
        f"{type(adapter).__name__}: outputs when adapted alone, and as a part"
    )
    answers = keras.ops.convert_to_numpy(alone(samples.x, training=False))
    found = np.asarray(answers)
    expect_close(found, outputs(_cascade(adapter, samples), samples.x), what)


def stock_layers_give_the_same(adapter: Adapter, samples: Samples) -> None:
    """Checks that `to_plain` computes the same as `call`."""
    cascade = _cascade(adapter, samples)
    what = f"{type(adapter).__name__}: to_plain() gives other outputs"
    plain = outputs(cascade.to_plain(), samples.x)
    expect_close(plain, outputs(cascade, samples.x), what)


def _own_arguments(layer: keras.Layer) -> list[str]:
    """Returns the arguments that a constructor names, less those of any layer.

    A `from_config` of its own may find them elsewhere in the config.
    """
    if type(layer).from_config.__func__ is not keras.Layer.from_config.__func__:
        return []
    named = {
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.KEYWORD_ONLY,
    }
    parameters = inspect.signature(type(layer)).parameters
    own = {name for name, x in parameters.items() if x.kind in named}
    return sorted(own - set(LayerArguments.__annotations__))


def _cascade(adapter: keras.Layer, samples: Samples) -> Cascade:
    """Returns a cascade of an identity network and the adapter, fitted."""
    inputs = keras.Input(samples.x.shape[1:])
    network = keras.Model(inputs, keras.layers.Identity()(inputs))
    cascade = build_cascade(network, adapters=adapter)
    return cascade.adapt((samples.x, samples.labels), verbose=False)
