"""Compares where one network can be entered with another's features."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.adapters import StitchAdapter
from keras_cascade.adapters.affine import fit_affine, linear_cka
from keras_cascade.data import is_reiterable
from keras_cascade.graph.taps import Taps
from keras_cascade.planning.arguments import Network
from keras_cascade.ranking.pair_moments import PairMoments
from keras_cascade.ranking.stitch_setup import Setup, set_up
from keras_cascade.ranking.stitch_table import (
    Conditions,
    Stitchability,
    StitchedPair,
)
from keras_cascade.ranking.stitched_pass import (
    Pass,
    Stream,
    read,
    stitched_quality,
)


def stitchability(
    upstream: Network,
    downstream: Network,
    data: object,
    taps: Taps = "stages",
    entries: Taps = "stages",
    *,
    validation_data: object = None,
    best: int = 3,
    control: bool = True,
    penalty: float = 1e-3,
    max_features: int = 512,
    max_samples: int | None = None,
    preprocess: object = "auto",
) -> Stitchability:
    """Compares where a network can be entered with another one's features.

    Do these two networks go together at all, and where? One pass over the
    data runs both on the same inputs, and compares each tap of the upstream
    with each place at which the downstream can be entered: by linear CKA,
    and by the part of the variance there that an affine map from the tap
    explains. With labels, the pairs that fit best, one for each entry, are
    built as cascades, with a `StitchAdapter` and no training, and their loss
    is measured.

    Beside each figure stands that of the control, an untrained upstream of
    the same architecture: what it reaches as well says nothing about what the
    networks have learned. Memory is bounded, whatever the number of samples.

    Args:
        upstream: A network that `build_cascade` takes.
        downstream: Another one, which takes the same inputs; images are
            resized for it.
        data: Inputs, in every form that `fit` takes, with or without labels.
        taps: The taps of the upstream, as in `rank_taps`. Defaults to
            `"stages"`.
        entries: The places of the downstream, in the same form. Those count
            through which all ways to its outputs lead. Defaults to
            `"stages"`.
        validation_data: Other data, for R² and loss. Defaults to `None`: the
            same data, which flatters wide taps where samples are few.
        best: int, the number of pairs whose loss is measured. Defaults to
            `3`.
        control: bool, whether an untrained upstream is compared as well.
            Defaults to `True`.
        penalty: float, that of the `StitchAdapter`. Defaults to `1e-3`.
        max_features: int, the width to which wider features are projected.
            Defaults to `512`.
        max_samples: int, the number of samples to read. Defaults to `None`:
            all.
        preprocess: As in `build_cascade`. Defaults to `"auto"`.

    Returns:
        A `Stitchability`, which is shown as a table: `.rows`, `.plot()`,
        `.to_dict()`, `.to_pandas()`; `.best()` are arguments of
        `build_cascade`.

    Raises:
        ValueError: If the downstream does not take the same inputs, no pair
            fits, data are too few or not finite, or memory would not do.
        TypeError: If the data are of another kind.

    Example:
    >>> def network(name):
    ...     sizes = (keras.Input((4,)), keras.layers.Dense(3, name="hidden"))
    ...     return keras.Sequential(
    ...         [*sizes, keras.layers.Dense(2, name="out")], name=name
    ...     )
    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> found = stitchability(
    ...     network("a"), network("b"), x, ["hidden", "out"], ["hidden"]
    ... )
    >>> [(row.tap, row.entry) for row in found.rows]
    [('hidden', 'hidden'), ('out', 'hidden')]

    Source: Kornblith et al. 2019 (arXiv 1905.00414) for CKA; Bansal et al.
    2021 (arXiv 2106.07682) for stitching and its control.
    """
    # It checks the penalty.
    penalty = StitchAdapter(penalty=penalty).penalty
    given = {"upstream": upstream, "downstream": downstream}
    setup, values = set_up(given, taps, entries, preprocess)
    upstreams = {"trained": setup.networks["upstream"]}
    others = data if validation_data is None else validation_data
    streams = Stream(data, max_samples), Stream(others, max_samples)
    fitted = read(setup, values, upstreams, streams[0], max_features, control)
    checked = fitted
    if validation_data is not None:
        checked = read(setup, values, upstreams, streams[1], max_features)
    pairs = _pairs(setup, fitted, checked, penalty)
    if checked.alone is not None and is_reiterable(data):
        rest = (streams, penalty, checked.alone.are_probabilities)
        pairs = [
            replace(x, **_losses(setup, upstreams, x, *rest))
            if x in _best(pairs, best)
            else x
            for x in pairs
        ]
    held_out = 0 if checked is fitted else checked.samples
    alone = checked.alone and checked.alone.quality
    conditions = Conditions(fitted.samples, held_out, alone, penalty)
    return Stitchability(
        pairs,
        conditions,
        [x.path for x in setup.taps],
        [x.path for x in setup.entries],
    )


def _pairs(
    setup: Setup, fitted: Pass, checked: Pass, penalty: float
) -> list[StitchedPair]:
    """Returns the pairs with CKA and R², and those of the control.

    Raises:
        ValueError: If no tap fits an entry.
    """
    scores = {
        side: _scores(moments, checked.moments[side], penalty)
        for side, moments in fitted.moments.items()
    }
    pairs = []
    for (tap, entry), found in scores["trained"].items():
        other = scores.get("control", {}).get((tap, entry), (None, None))
        pairs.append(StitchedPair(setup.path_of(tap), entry, *found, *other))
    if not pairs:
        raise ValueError(
            "No tap fits an entry: maps are mapped to maps, sequences to "
            "sequences, and anything to vectors. Taps: "
            f"{listed(x.path for x in setup.taps)}; entries: "
            f"{listed(x.path for x in setup.entries)}."
        )
    return pairs


def _scores(
    fitted: PairMoments, checked: PairMoments, penalty: float
) -> dict[tuple[str, str], tuple[float, float]]:
    """Returns the CKA and the R² of each pair of a tap and an entry."""
    found = {}
    both = zip(fitted.scatters(), checked.scatters(), strict=True)
    for (tap, entry, scatter), (_, _, other) in both:
        affine = fit_affine(scatter, "ridge", penalty)
        found[tap, entry] = (linear_cka(scatter), affine.r2(other))
    return found


def _best(pairs: Sequence[StitchedPair], count: int) -> list[StitchedPair]:
    """Returns the pairs of the highest R², one for each entry."""
    chosen: dict[str, StitchedPair] = {}
    for pair in sorted(pairs, key=lambda x: -x.r2):
        chosen.setdefault(pair.entry, pair)
    return list(chosen.values())[:count]


def _losses(
    setup: Setup,
    upstreams: Mapping[str, keras.Model],
    pair: StitchedPair,
    streams: tuple[Stream, Stream],
    penalty: float,
    probabilities: bool,
) -> dict[str, float | None]:
    """Returns the losses of a pair's cascades, trained and untrained."""
    places = pair.tap, pair.entry
    found: dict[str, float | None] = {}
    for side, upstream in upstreams.items():
        quality = stitched_quality(
            setup, upstream, places, streams, penalty, probabilities
        )
        prefix = "" if side == "trained" else "control_"
        found[f"{prefix}loss"] = quality.loss
        found[f"{prefix}accuracy"] = quality.accuracy
    return found
