"""Checks flags by block and pattern, and which weights fit then moves."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.adapters import DenseAdapter, PCAAdapter
from keras_cascade.graph import low_rank

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.normal(size=(32, 2)).astype("float32")


def upstream():
    """Returns two stages with moments and random states."""
    x = inputs = keras.Input((6,), name="x")
    for stage in ("stage1", "stage2"):
        x = layers.Dense(8, activation="relu", name=f"{stage}_dense")(x)
        x = layers.BatchNormalization(momentum=0.5, name=f"{stage}_norm")(x)
        x = layers.Dropout(0.5, name=f"{stage}_dropout")(x)
    return keras.Model(inputs, x, name="encoder")


def downstream():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(3, name="hidden"),
            layers.Dense(2, name="out"),
        ],
        name="expert",
    )


def build(trainable=None, **arguments):
    arguments = {"adapters": 4, **arguments}
    return kc.build_cascade(
        upstream(),
        downstream(),
        trainable=trainable,
        optimizer=keras.optimizers.SGD(0.05),
        loss="mse",
        **arguments,
    )


def trained(cascade):
    """Returns the paths of layers with trainable weights."""
    paths = {v.path.rsplit("/", 1)[0] for v in cascade.trainable_variables}
    return sorted(paths)


def values(cascade):
    return {
        v.path: np.array(ops.convert_to_numpy(v)) for v in cascade.variables
    }


def moved_by_fit(cascade):
    """Returns the layers that change in one epoch."""
    before = values(cascade)
    cascade.fit(X, Y, batch_size=8, verbose=0)
    after = values(cascade)
    changed = [p for p in before if not np.array_equal(before[p], after[p])]
    inner = "/seed_generator/seed_generator_state"
    return sorted({p.removesuffix(inner) for p in changed})


REST = ["adapters/output", "downstream/hidden", "downstream/out"]
# The argument, then the layers of the upstream that train, then the rest.
CASES = {
    "None": (None, [], REST),
    "True": (
        True,
        ["stage1_dense", "stage1_norm", "stage2_dense", "stage2_norm"],
        REST,
    ),
    "False": (False, [], []),
    "a block": (
        {"upstream": True},
        ["stage1_dense", "stage1_norm", "stage2_dense", "stage2_norm"],
        REST,
    ),
    "a glob": (
        {"upstream/stage2_*": True},
        ["stage2_dense", "stage2_norm"],
        REST,
    ),
    "another block": ({"downstream": False}, [], REST[:1]),
    "a range": (
        {"upstream/stage2_dense..": True},
        ["stage2_dense", "stage2_norm"],
        REST,
    ),
    "any level": ({"**/*_dense": True}, ["stage1_dense", "stage2_dense"], REST),
    "later over earlier": (
        {"upstream": True, "upstream/*_norm": False},
        ["stage1_dense", "stage2_dense"],
        REST,
    ),
    "earlier under later": (
        {"downstream/out": False, "downstream/hidden": True},
        [],
        REST[:2],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_flags_follow_the_patterns(case):
    trainable, inside, rest = CASES[case]
    cascade = build(trainable)
    assert trained(cascade) == sorted(
        [*rest, *(f"upstream/{name}" for name in inside)]
    )


def test_the_order_of_overlapping_patterns_counts():
    general_last = {"upstream/stage2_dense": False, "upstream/stage2_*": True}
    with pytest.raises(ValueError, match="changes nothing, as the later"):
        build(general_last)
    cascade = build(dict(reversed(general_last.items())))
    assert trained(cascade)[3:] == ["upstream/stage2_norm"]


def test_a_pattern_that_several_later_ones_cover_is_an_error():
    with pytest.raises(ValueError, match=r"'upstream' changes nothing"):
        build({"upstream": True, "*/stage1_*": False, "*/stage2_*": True})


def test_a_frozen_upstream_is_bit_identical_after_training():
    moved = moved_by_fit(build())
    assert {path.split("/")[0] for path in moved} == {"adapters", "downstream"}


def test_a_network_can_be_frozen_in_part():
    moved = moved_by_fit(build({"upstream/stage2_*": True}))
    inside = [path for path in moved if path.startswith("upstream")]
    # On torch, Dropout draws from torch's own generator.
    assert [path for path in inside if path != "upstream/stage2_dropout"] == [
        "upstream/stage2_dense/bias",
        "upstream/stage2_dense/kernel",
        "upstream/stage2_norm/beta",
        "upstream/stage2_norm/gamma",
        "upstream/stage2_norm/moving_mean",
        "upstream/stage2_norm/moving_variance",
    ]


def test_a_frozen_layer_runs_in_inference_mode():
    cascade, network = build({"upstream/stage2_dense": True}), upstream()
    network.set_weights(cascade.blocks["upstream"].get_weights())
    expected = network(X, training=False)
    features = cascade.blocks["upstream"](X, training=True)["output"]
    np.testing.assert_array_equal(
        ops.convert_to_numpy(features), ops.convert_to_numpy(expected)
    )


def test_a_trained_layer_runs_in_training_mode():
    block = build({"upstream": True}).blocks["upstream"]
    first, second = (
        ops.convert_to_numpy(block(X, training=True)["output"])
        for _ in range(2)
    )
    assert (first == 0).mean() > 0.3
    assert np.abs(first - second).max() > 0
    still = ops.convert_to_numpy(block(X)["output"])
    np.testing.assert_array_equal(
        still, ops.convert_to_numpy(block(X)["output"])
    )


def test_a_network_inside_another_can_be_frozen_in_part():
    inner = upstream()
    outer = keras.Sequential(
        [keras.Input((6,)), inner, layers.Dense(5, name="last")], name="outer"
    )
    cascade = kc.build_cascade(
        outer,
        head=2,
        trainable={"upstream/encoder/stage2_*": True},
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
    )
    inside = {p.split("/")[2] for p in moved_by_fit(cascade) if "encoder" in p}
    assert inside - {"stage2_dropout"} == {"stage2_dense", "stage2_norm"}


def test_a_bare_true_leaves_adapters_frozen_that_were_made_so():
    cascade = build(True, adapters=PCAAdapter(4))
    assert not any(path.startswith("adapters") for path in trained(cascade))
    assert not trained(build({"downstream": False}, adapters=PCAAdapter(4)))


def test_a_pattern_unfreezes_an_adapter_that_was_made_frozen():
    cascade = build({"adapters": True}, adapters=PCAAdapter(4))
    assert trained(cascade)[0] == "adapters/output"
    cascade.adapt(X, verbose=False)
    moved = moved_by_fit(cascade)
    assert "adapters/output/components" in moved
    assert "adapters/output/mean" in moved


def test_a_frozen_adapter_stays_frozen_in_fit():
    cascade = build(adapters=DenseAdapter(4, trainable=False))
    moved = moved_by_fit(cascade)
    assert {path.split("/")[0] for path in moved} == {"downstream"}


def test_a_pca_adapter_is_bit_identical_after_training():
    cascade = build(True, adapters=PCAAdapter(4)).adapt(X, verbose=False)
    moved = {path.split("/")[0] for path in moved_by_fit(cascade)}
    assert moved == {"upstream", "downstream"}


def test_flags_of_the_networks_passed_in_do_not_change():
    first, second = upstream(), downstream()
    first.get_layer("stage1_dense").trainable = False
    kc.build_cascade(first, second, trainable={"downstream": False})
    flags = {layer.name: layer.trainable for layer in first.layers}
    assert [name for name, flag in flags.items() if not flag] == [
        "stage1_dense"
    ]
    assert all(layer.trainable for layer in second.layers)


def test_augmentation_stays_active_in_a_frozen_network():
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.RandomTranslation(0.5, 0.5, fill_mode="constant"),
            layers.Flatten(),
        ],
        name="augmented",
    )
    block = kc.build_cascade(network, head=2).blocks["upstream"]
    images = np.ones((8, 4, 4, 1), "float32")
    active = ops.convert_to_numpy(block(images, training=True)["output"])
    still = ops.convert_to_numpy(block(images)["output"])
    np.testing.assert_array_equal(still, 1)
    assert np.abs(active - still).max() > 0.5


def injected(trainable=None):
    """Returns a cascade with features injected into a nested layer."""
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, name="leaf")], name="inner"
    )
    second = keras.Sequential(
        [keras.Input((6,)), inner, layers.Dense(2, name="out")], name="expert"
    )
    return kc.build_cascade(
        upstream(),
        second,
        taps={"style": "stage1_dense"},
        inject={"style": kc.Injection("inner/leaf", "concat")},
        trainable=trainable,
        optimizer=keras.optimizers.SGD(0.05),
        loss="mse",
    )


SIDE = "adapters/injections/style_into_leaf_projection"
OWN = "downstream/inner/style_into_leaf_own"
INJECTED = {
    "None": (None, [SIDE, OWN, "downstream/inner/leaf", "downstream/out"]),
    "the downstream frozen": ({"downstream": False}, [SIDE]),
    "all but what enters": (
        {"adapters": False, "**/style_into_*": False},
        ["downstream/inner/leaf", "downstream/out"],
    ),
    "what enters alone": (
        {"downstream": False, "downstream/**/style_into_*": True},
        [SIDE, OWN],
    ),
    "a layer of the nested network": (
        {"downstream": False, "downstream/inner/leaf": True},
        [SIDE, "downstream/inner/leaf"],
    ),
    "False": (False, []),
}


@pytest.mark.parametrize("case", INJECTED)
def test_the_sides_of_a_merge_train_with_their_blocks(case):
    trainable, expected = INJECTED[case]
    found = trained(injected(trainable))
    assert [path for path in found if path != "adapters/style"] == sorted(
        expected
    )


def test_a_frozen_merge_does_not_move():
    cascade = injected({"adapters": False, "downstream/inner": False})
    assert moved_by_fit(cascade) == [
        "downstream/out/bias",
        "downstream/out/kernel",
    ]


def test_upstream_means_every_upstream():
    cascade = kc.build_cascade(
        {"one": upstream(), "two": upstream()},
        downstream(),
        adapters=2,
        trainable={"upstream/stage2_*": True, "two": False},
        optimizer=keras.optimizers.SGD(0.05),
        loss="mse",
    )
    inside = [
        path for path in trained(cascade) if path.startswith(("one", "two"))
    ]
    assert inside == ["one/stage2_dense", "one/stage2_norm"]


def fit_with_stage(cascade):
    cascade.fit(X, Y, epochs=2, unfreeze={1: "upstream"}, verbose=0)


@pytest.mark.parametrize(
    "change", [lambda cascade: cascade.unfreeze("upstream"), fit_with_stage]
)
@pytest.mark.parametrize("at", [1, 3])
def test_an_interrupted_change_leaves_all_flags_as_they_were(
    change, at, monkeypatch
):
    cascade = build()
    before, original, calls = trained(cascade), low_rank.set_flag, []

    def interrupted(layer, flag):
        original(layer, flag)
        calls.append(layer)
        if len(calls) == at:
            raise KeyboardInterrupt

    # A fit sets flags once before it, to see what will train.
    if change is fit_with_stage:
        at += len(cascade.blocks["upstream"].layers) - 1
    with monkeypatch.context() as patch:
        patch.setattr(low_rank, "set_flag", interrupted)
        with pytest.raises(KeyboardInterrupt):
            change(cascade)
    assert trained(cascade) == before
    change(cascade)
    assert len(trained(cascade)) == len(before) + 4
