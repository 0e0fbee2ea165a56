"""Reads the features of two networks in one pass, and fits stitched cascades.

Tested by `tests/ranking/test_stitching.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.console import progress
from keras_cascade.adapters import StitchAdapter
from keras_cascade.adapters.fitting import InnerFeatures
from keras_cascade.adapters.pooling import channel_axis
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.data import labelled_batches, length, to_numpy
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.injection.arguments import Injection
from keras_cascade.planning.arguments import Arguments
from keras_cascade.ranking.features import predict
from keras_cascade.ranking.pair_moments import PairMoments, PlacedFeatures
from keras_cascade.ranking.stitch_setup import OUTPUT, Setup
from keras_cascade.ranking.stitched_scores import Quality, QualityMeter
from keras_cascade.ranking.untrained import settle

BATCH_SIZE = 32


@dataclass(frozen=True, eq=False)
class Stream:
    """Data to read, as `fit` takes them.

    Attributes:
        data: The data.
        limit: The number of samples to read; None for all.
    """

    data: object
    limit: int | None

    def batches(
        self, model: keras.Model
    ) -> Iterator[tuple[dict[str, Any], Any]]:
        """Yields batches by the names of a model's inputs, and labels."""
        paths = input_paths(model.input)
        for x, y in labelled_batches(self.data, BATCH_SIZE, self.limit):
            # A cascade has another name for the only input of its networks.
            alone = isinstance(x, Mapping) and len(x) == len(paths) == 1
            given = next(iter(x.values())) if alone else x
            yield sort_inputs(given, paths, "data"), y


@dataclass(frozen=True, eq=False)
class Pass:
    """The findings of a pass over the data.

    Attributes:
        moments: The joint moments, by upstream.
        samples: The number of samples.
        alone: How well the downstream does alone; None without labels.
    """

    moments: dict[str, PairMoments]
    samples: int
    alone: QualityMeter | None


def read(
    setup: Setup,
    downstream: InnerFeatures,
    upstreams: dict[str, keras.Model],
    stream: Stream,
    max_features: int,
    control: bool = False,
) -> Pass:
    """Reads the data once.

    Args:
        setup: What is compared.
        downstream: The model of the downstream's features.
        upstreams: The upstreams by name.
        stream: The data.
        max_features: The width to which wider features are projected.
        control: Whether an untrained one is made of the first batch, and
            added to the upstreams. Defaults to `False`.

    Raises:
        ValueError: If there are too few samples, or they are not finite.
    """
    readers = {
        name: InnerFeatures(Cascade.from_arguments(setup.arguments(x)))
        for name, x in upstreams.items()
    }
    moments = {name: PairMoments(max_features) for name in readers}
    meter, samples, labelled = QualityMeter(), 0, True
    model = readers["trained"].network
    finite = stream.limit is None
    total = length(stream.data, BATCH_SIZE) if finite else None
    with progress(total, visible=True) as bar:
        for number, (batch, y) in enumerate(stream.batches(model)):
            bar("Comparing features", number)
            if control and not number:
                upstreams["control"], made = _untrained(setup, batch)
                readers["control"] = InnerFeatures(made)
                moments["control"] = PairMoments(max_features)
            values = _features(setup, downstream, batch)
            answers = values.pop(OUTPUT, None)
            for name, reader in readers.items():
                moments[name].add(_features(setup, reader, batch), values)
            labelled = labelled and isinstance(y, np.ndarray)
            if labelled and answers is not None:
                meter.add(answers.rows, y)
            samples += len(next(iter(values.values())).rows)
    if samples < 2:
        raise ValueError(f"The data has {samples} samples; give some hundred.")
    return Pass(moments, samples, meter if labelled and meter.count else None)


def stitched_quality(
    setup: Setup,
    upstream: keras.Model,
    places: tuple[str, str],
    streams: tuple[Stream, Stream],
    penalty: float,
    probabilities: bool,
) -> Quality:
    """Returns how well a stitched cascade does, without training.

    Args:
        setup: What is compared.
        upstream: The upstream, trained or not.
        places: The tap and the entry.
        streams: The data to fit to, and those to measure on.
        penalty: The penalty of the map.
        probabilities: Whether outputs are probabilities, else logits.
    """
    tap, entry = places
    cascade = Cascade.from_arguments(
        Arguments(
            upstream=upstream,
            downstream=setup.networks["downstream"],
            taps={"stitched": tap},
            adapters=StitchAdapter(penalty=penalty),
            inject={"stitched": Injection(entry, merge="replace")},
            preprocess=setup.preprocess,
        )
    )
    fitted, checked = streams
    inputs = (x for x, _ in fitted.batches(cascade))
    cascade.adapt(inputs, verbose=False, check_values=False)
    meter = QualityMeter(probabilities)
    for given, y in checked.batches(cascade):
        full, count = _filled(given)
        meter.add(to_numpy(predict(cascade, full))[:count], y)
    return meter.quality


def _untrained(
    setup: Setup, batch: Mapping[str, Any]
) -> tuple[keras.Model, Cascade]:
    """Returns an untrained upstream, and the cascade of its features."""
    # clone_model copies layers, not weights.
    made: Any = keras.models.clone_model(setup.networks["upstream"])
    arguments = setup.arguments(made)
    own = replace(arguments, copy=False, trainable=True)
    cascade = Cascade.from_arguments(own)
    settle(cascade, batch)
    return made, cascade


def _filled(batch: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
    """Returns a batch with its last row repeated, and how many it had.

    Every size of a batch is compiled anew.
    """
    given = {name: x for name, x in batch.items() if x is not None}
    count = len(next(iter(given.values())))
    places = np.minimum(np.arange(max(count, BATCH_SIZE)), count - 1)
    filled = {name: to_numpy(x)[places] for name, x in given.items()}
    return {**batch, **filled}, count


def _features(
    setup: Setup, reader: InnerFeatures, batch: Mapping[str, Any]
) -> dict[str, PlacedFeatures]:
    """Returns features with their channels last, in float32."""
    full, count = _filled(batch)
    tensors, masks = reader.of_batch(full)
    found = {}
    for name, tensor in tensors.items():
        rows = to_numpy(tensor)[:count].astype("float32")
        axis = channel_axis(rows.ndim, setup.formats.get(name))
        rows = np.moveaxis(rows, axis, -1)
        if not np.isfinite(rows).all():
            raise ValueError(
                f"The features at '{setup.path_of(name)}' hold NaN or "
                "infinity. Look at the data, or leave it out."
            )
        mask = masks.get(name) if rows.ndim == 3 else None
        found[name] = PlacedFeatures(
            rows, None if mask is None else to_numpy(mask)[:count]
        )
    return found
