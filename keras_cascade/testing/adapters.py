"""What every adapter must keep, checked on one."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_cascade.adapters import Adapter
from keras_cascade.build import build_cascade
from keras_cascade.testing.checks import (
    expect,
    expect_close,
    expect_equal,
    outputs,
    reloaded,
    run,
)


def check_adapter(
    adapter: Adapter,
    input_shape: Sequence[int] = (8,),
    samples: int = 64,
    seed: int = 0,
    data: Any = None,
    labels: Any = None,
) -> list[str]:
    """Checks that an adapter of yours keeps what cascades rely on.

    It is copied by its config, learns from data where it must, treats each
    sample for itself, answers the same after save and load, and, where it has
    a `to_plain`, in stock layers.

    Args:
        adapter: An adapter that has not been built; it stays as it is.
        input_shape: Shape of a sample that it takes. Defaults to `(8,)`.
        samples: How many random samples are used. Defaults to `64`.
        seed: Of the random samples. Defaults to `0`.
        data: Array of samples to use instead, for an adapter that does not
            take any numbers, such as one of probabilities. Defaults to
            `None`.
        labels: Array of their labels, for an adapter that learns from them.
            Defaults to `None`.

    Returns:
        The names of the checks that were run.

    Raises:
        CheckError: If one does not hold.

    Example:
        >>> check_adapter(keras_cascade.adapters.PCAAdapter(2))[0]
        'config_makes_an_equal_adapter'
    """
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
    if type(adapter).to_plain is not Adapter.to_plain:
        checks.append(stock_layers_give_the_same)
    return run(checks, adapter, Samples(data, labels))


class Samples(NamedTuple):
    """What an adapter is checked on."""

    x: np.ndarray
    labels: np.ndarray | None


def config_makes_an_equal_adapter(adapter: Adapter, samples: Samples) -> None:
    """`from_config(get_config())` has the same config."""
    config = adapter.get_config()
    again = type(adapter).from_config(dict(config)).get_config()
    expect(
        again == config,
        f"{type(adapter).__name__}: get_config() leaves something out: "
        f"{config} became {again}.",
    )


def adapter_passed_in_stays_as_it_is(
    adapter: Adapter, samples: Samples
) -> None:
    """A cascade works on a copy."""
    before = (adapter.built, adapter.get_config())
    _cascade(adapter, samples)
    expect(
        before == (adapter.built, adapter.get_config()),
        f"{type(adapter).__name__}: building a cascade changed the adapter "
        "that was passed in; from_config must not share state.",
    )


def samples_are_treated_one_by_one(adapter: Adapter, samples: Samples) -> None:
    """A sample's features do not depend on the rest of the batch."""
    cascade = _cascade(adapter, samples)
    together = outputs(cascade, samples.x)[:3]
    alone = np.concatenate(
        [outputs(cascade, samples.x[i : i + 1]) for i in range(3)]
    )
    kind = type(adapter).__name__
    what = f"{kind}: in inference a sample's features depend on its batch"
    expect_close(alone, together, what)


def shape_is_the_one_announced(adapter: Adapter, samples: Samples) -> None:
    """What comes out has the symbolic shape."""
    cascade = _cascade(adapter, samples)
    found, announced = outputs(cascade, samples.x).shape, cascade.output_shape
    expect(
        found[1:] == tuple(announced[1:]),
        f"{type(adapter).__name__}: compute_output_shape says {announced}, "
        f"call gives {found}.",
    )


def save_and_load_keep_the_answers(adapter: Adapter, samples: Samples) -> None:
    """State that was learned is in the file."""
    cascade = _cascade(adapter, samples)
    again = reloaded(cascade)
    what = f"{type(adapter).__name__}: answers before and after save and load"
    expect_equal(outputs(again, samples.x), outputs(cascade, samples.x), what)


def frozen_adapter_has_nothing_to_train(
    adapter: Adapter, samples: Samples
) -> None:
    """`trainable=False` reaches every weight."""
    cascade = _cascade(adapter, samples)
    layer = cascade.adapters["output"]
    layer.trainable = False
    left = [variable.path for variable in layer.trainable_variables]
    expect(
        not left,
        f"{type(adapter).__name__}: frozen, it still trains {left}.",
    )


def stock_layers_give_the_same(adapter: Adapter, samples: Samples) -> None:
    """`to_plain` computes what `call` does."""
    cascade = _cascade(adapter, samples)
    what = f"{type(adapter).__name__}: to_plain() answers otherwise"
    plain = outputs(cascade.to_plain(), samples.x)
    expect_close(plain, outputs(cascade, samples.x), what)


def _cascade(adapter: Adapter, samples: Samples) -> keras.Model:
    """The adapter behind a network that passes its input on."""
    inputs = keras.Input(samples.x.shape[1:])
    network = keras.Model(inputs, keras.layers.Identity()(inputs))
    cascade = build_cascade(network, adapters=adapter)
    return cascade.adapt((samples.x, samples.labels), verbose=False)
