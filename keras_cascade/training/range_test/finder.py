"""Finds a learning rate for each block, by range tests on a copy."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from numbers import Real
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade import data as user_data
from keras_cascade._cascade_view import CascadeView, as_model, is_cascade
from keras_cascade._reporting.console import progress
from keras_cascade.adapters.fitting import check_fitted
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.layer_copying import (
    copy_state_outside_variables,
    to_numpy_copy,
)
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.random_states import preserve_random_states
from keras_cascade.training.range_test.results import (
    FoundLearningRates,
    RangeTest,
    check_rule,
)
from keras_cascade.training.range_test.rules import diverged, smooth
from keras_cascade.training.range_test.sweep import Sweep

# Steps in a row that loss scaling may skip before a block counts as diverged.
MOST_SKIPPED = 50


def find_learning_rates(
    cascade: CascadeView,
    data: object,
    y: object = None,
    *,
    blocks: Sequence[str] | None = None,
    minimum: float = 1e-7,
    maximum: float = 10.0,
    steps: int = 100,
    batch_size: int = 32,
    rule: str = "valley",
    smoothing: float = 0.8,
    seed: int = 0,
    verbose: bool = True,
) -> FoundLearningRates:
    """Suggests a learning rate for each block, by a range test of each.

    A block trains for some steps while its rate rises exponentially from
    `minimum` to `maximum`, and stops when the loss explodes. Meanwhile all
    other blocks have the rate 0: they run in training mode and do not learn,
    so that the loss depends on this block alone. Each test starts from the
    present weights, with the cascade's optimizer and empty slots.

    A copy of the cascade trains. The cascade itself stays as it is to the bit,
    with its weights, moments, seeds, optimizer and compiled functions, and so
    do the global random states, also when it is interrupted. Only a data set
    that shuffles continues its own random sequence.

    Args:
        cascade: A compiled `Cascade` whose adapters are fitted.
        data: Data as `fit` takes them, with labels: `(x, y)`,
            `(x, y, sample_weight)`, or batches of these that can be read
            several times. Arrays are shuffled; at their end data begin again.
        y: Labels, where the data are arrays without them. Defaults to `None`.
        blocks: The blocks that are tested, or any path patterns as in
            `learning_rates=`. Defaults to `None`, every block that trains.
        minimum: The lowest rate. Defaults to `1e-7`.
        maximum: The highest rate. Defaults to `10.0`.
        steps: Updates from the lowest rate to the highest. With gradient
            accumulation each takes as many batches as an update does, whose
            mean loss counts. Defaults to `100`.
        batch_size: The size of a batch where the data are arrays. A rate is
            right for one batch size: take that of `fit`. Defaults to `32`.
        rule: The rule of `suggestions`: `"valley"`, half way down the longest
            descent, or `"steepest"`, where the descent is steepest. Defaults
            to `"valley"`.
        smoothing: The weight of the neighbouring step in the losses' moving
            average; the weight of the next one is its square, and so on.
            Rules read the average over both sides, which does not lag; the
            average of the steps so far shows the explosion. Defaults to
            `0.8`.
        seed: The seed of the order of arrays. Defaults to `0`.
        verbose: Whether to show a progress bar for each block. Defaults to
            `True`.

    Returns:
        A `FoundLearningRates`: its `suggestions` are a value for
        `learning_rates=`, `plot()` shows the curves, and it prints as a table.

    Raises:
        ValueError: If the cascade is not compiled, nothing trains, a pattern
            covers nothing that trains, the data has no labels, or a number is
            out of its range.
        TypeError: If the model is not a cascade.

    Example:
    >>> found = keras_cascade.find_learning_rates(cascade, (images, labels))
    >>> cascade.compile("adam", "mse", learning_rates=found.suggestions)

    References:
        Smith 2015, Cyclical Learning Rates for Training Neural Networks,
        section 3.3. The rules, and leaving out the ends of the curve, are
        those of fastai's `lr_find`.
    """
    _check_numbers(minimum, maximum, steps, batch_size, smoothing)
    check_rule(rule)
    _check_cascade(cascade)
    patterns = _find_patterns(cascade, blocks)
    data = data if y is None else (data, y)
    sweep = Sweep(
        minimum, maximum, steps, _batches_per_update(cascade.optimizer)
    )
    tests = {}
    with preserve_random_states():
        _check_labels(data, batch_size, seed)
        copy = _copy(cascade)
        before = [(v, to_numpy_copy(v)) for v in copy.variables]
        for pattern in patterns:
            # Only the optimizer is made again for each block, in `_compile`.
            for variable, value in before:
                variable.assign(value)
            _compile(copy, cascade, pattern, sweep)
            stream = user_data.training_batches(data, batch_size, seed)
            with progress(sweep.updates, verbose) as bar:
                show = partial(bar, f"range test of {pattern}: steps")
                found = _range_test(copy, sweep, stream, smoothing, show)
            tests[pattern] = found
    return FoundLearningRates(tests, rule)


def _range_test(
    model: keras.Model,
    sweep: Sweep,
    stream: Iterator[tuple],
    smoothing: float,
    show: Callable[[int], None],
) -> RangeTest:
    """Trains until the highest rate, or until the loss explodes."""
    optimizer: Any = model.optimizer
    losses: list[float] = []
    exploded, skipped = False, 0
    while len(losses) < sweep.updates and not exploded:
        loss = np.mean([_step(model, stream) for _ in range(sweep.every)])
        if int(optimizer.iterations) == len(losses) and (
            np.isfinite(loss) and skipped < MOST_SKIPPED
        ):
            # Loss scaling skipped a step of infinite gradients.
            skipped += 1
            continue
        losses.append(float(loss))
        skipped = 0
        averages = smooth(np.array(losses), smoothing)
        exploded = diverged(averages, ignored=sweep.updates // 10)
        show(len(losses))
    return RangeTest(
        rates=sweep.rates[: len(losses)].astype(np.float64),
        losses=np.array(losses),
        smoothing=smoothing,
        diverged=exploded,
    )


def _step(model: keras.Model, stream: Iterator[tuple]) -> float:
    """Trains on one batch, and returns its loss before the update."""
    x, y, weights = next(stream)
    model.reset_metrics()  # else the loss is the mean of all batches so far
    logs: Any = model.train_on_batch(
        x, y, sample_weight=weights, return_dict=True
    )
    return float(logs["loss"])


def _copy(cascade: CascadeView) -> Any:
    """Returns a copy as a file would give it, low-rank updates included."""
    # clone_model would leave out the weights, and flags inside layers.
    copy = type(cascade).from_config(cascade.get_config())
    for source, target in zip(cascade.variables, copy.variables, strict=True):
        target.assign(to_numpy_copy(source))
    layers = leaf_layers(as_model(cascade)), leaf_layers(as_model(copy))
    for (_, source), (_, target) in zip(*layers, strict=True):
        copy_state_outside_variables(source, target)
    return copy


def _compile(
    copy: Any, cascade: CascadeView, pattern: str, sweep: Sweep
) -> None:
    """Compiles a copy like the cascade, with a rate for one block only."""
    scales = isinstance(cascade.optimizer, keras.optimizers.LossScaleOptimizer)
    lookup = LayerLookup(cascade)
    others = _trainable_layers(lookup) - set(lookup.covered(pattern, "blocks"))
    # Where all layers are tested, a later pattern would override "**" wholly.
    rest = {"**": 0.0} if others else {}
    arguments = {
        **compat.compile_arguments(as_model(cascade)),
        "optimizer": cascade.optimizer,
        "metrics": None,
        "weighted_metrics": None,
        "steps_per_execution": 1,
        "auto_scale_loss": scales,
        "learning_rates": {**rest, pattern: sweep},
    }
    copy.compile(**arguments)


def _find_patterns(
    cascade: CascadeView, blocks: Sequence[str] | None
) -> list[str]:
    """Returns the blocks or patterns to test."""
    if isinstance(blocks, str):
        blocks = [blocks]
    lookup = LayerLookup(cascade)
    training = _trainable_layers(lookup)
    if blocks is None:
        blocks = [
            name
            for name in cascade.blocks
            if any(path[0] == name for path in training)
        ]
        if not blocks:
            raise ValueError(
                f"Nothing trains in the cascade '{cascade.name}'. Build it "
                "with trainable=, or set the flags of layers."
            )
    for pattern in blocks:
        if not training & set(lookup.covered(pattern, "blocks")):
            raise ValueError(
                f"blocks names '{pattern}', which covers nothing that trains. "
                "Frozen layers need no learning rate."
            )
    return list(blocks)


def _trainable_layers(lookup: LayerLookup) -> set[LayerPath]:
    """Returns the layers with weights that train."""
    return {p for p, x in lookup.layers.items() if x.trainable_variables}


def _batches_per_update(optimizer: Any) -> int:
    """Returns the number of batches for an update."""
    while (inner := getattr(optimizer, "inner_optimizer", None)) is not None:
        optimizer = inner
    return optimizer.gradient_accumulation_steps or 1


def _check_cascade(cascade: CascadeView) -> None:
    if not is_cascade(cascade):
        raise TypeError(
            "find_learning_rates needs a Cascade, which build_cascade makes; "
            f"received {cascade!r} of type {type(cascade).__name__}."
        )
    if not cascade.compiled or cascade.optimizer is None:
        raise ValueError(
            f"The cascade '{cascade.name}' is not compiled. Build it with "
            "loss=, or call compile(optimizer, loss) first."
        )
    check_fitted(as_model(cascade), "the range test")


def _check_labels(data: object, batch_size: int, seed: int) -> None:
    _, labels, _ = next(user_data.training_batches(data, batch_size, seed))
    if labels is None:
        raise ValueError(
            "find_learning_rates trains, and the data has no labels. Pass "
            "(x, y), or batches of (x, y)."
        )


def _check_numbers(
    minimum: float,
    maximum: float,
    steps: int,
    batch_size: int,
    smoothing: float,
) -> None:
    given = {"minimum": minimum, "maximum": maximum, "smoothing": smoothing}
    for name, value in given.items():
        if not isinstance(value, Real):
            raise TypeError(f"{name} is a number; received {value!r}.")
    if not 0 < minimum < maximum < math.inf:
        raise ValueError(
            f"minimum={minimum} and maximum={maximum}: learning rates rise "
            "from a minimum above 0 to a finite maximum above it."
        )
    if not isinstance(steps, int) or steps < 20:
        raise ValueError(
            f"steps={steps!r}: a curve needs at least 20, as rules leave out "
            "the first tenth and the last five."
        )
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size={batch_size!r} must be at least 1.")
    if not 0 <= smoothing < 1:
        raise ValueError(
            f"smoothing={smoothing} must be at least 0 and below 1."
        )
