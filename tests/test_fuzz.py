"""Random arguments: every mistake ends in a clear error of our own.

Each test draws values that are right, nearly right or nonsense, and lets pass
what works and what is refused: by a `ValueError`, a `TypeError`, or an error
of the library's own. Anything else fails, with the arguments that caused it.
"""

import contextlib
import inspect
import io
import zipfile

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from keras import layers

import keras_cascade as kc
from keras_cascade import adapters
from keras_cascade.cli import main
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.paths import select
from keras_cascade.planning.arguments import Arguments
from keras_cascade.planning.plan import make_plan

# The words for the arguments in messages.
WORDS = {
    "taps": "tap",
    "adapters": "adapter",
    "extra_inputs": "extra input",
    "learning_rates": "rate",
    "optimizer": "optimizer",
}
REFUSALS = (ValueError, TypeError, kc.testing.CheckError, kc.ParityError)
RNG = np.random.default_rng(0)
IMAGES = RNG.normal(size=(8, 6, 6, 3)).astype("float32")
TARGETS = np.zeros((8, 2), "float32")


def few(count, derandomize=True):
    return settings(
        max_examples=count,
        deadline=None,
        derandomize=derandomize,
        database=None,
        # Shrinking builds networks again and again.
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


def fuzzed(count, many):
    """Runs a test on a few inputs each time, and on many others if large."""

    def decorate(test):
        numbers = [
            pytest.param(count, True, id="few"),
            pytest.param(many, False, id="many", marks=pytest.mark.large),
        ]

        @pytest.mark.parametrize(("examples", "fixed"), numbers)
        def run(examples, fixed, world):
            @few(examples, fixed)
            @given(st.data())
            def body(data):
                test(world, lambda strategy: made(data.draw(strategy)))

            body()

        run.__name__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


class World:
    """The networks that all tests of this module share."""

    def __init__(self, folder):
        self.folder = folder
        inputs = keras.Input((6, 6, 3), name="image")
        act = layers.ReLU(name="act")
        x = act(layers.Conv2D(2, 3, name="conv_a")(inputs))
        inner_inputs = keras.Input((4, 4, 2), name="inner_inputs")
        conv_b = layers.Conv2D(2, 3, name="conv_b")(inner_inputs)
        x = act(keras.Model(inner_inputs, conv_b, name="inner")(x))
        x = layers.Dense(3, name="dense")(layers.Flatten(name="flat")(x))
        self.upstream = keras.Model(inputs, x, name="up")
        inputs = keras.Input((3,), name="features")
        x = layers.Dense(4, name="hidden")(inputs)
        x = layers.Dense(2, name="out")(x)
        self.downstream = keras.Model(inputs, x, name="down")
        self.graph = read_graph(self.upstream)
        self.cascade = kc.build_cascade(
            self.upstream,
            self.downstream,
            taps={"f": "flat"},
            adapters=adapters.PCAAdapter(3),
            optimizer="sgd",
            loss="mse",
        ).adapt(IMAGES, verbose=False)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return World(tmp_path_factory.mktemp("fuzz"))


def attempt(world, call, *given_values, names=()):
    """Calls, and accepts errors that are our own and name an argument."""
    try:
        call()
    except REFUSALS as error:
        if names:
            words = [WORDS.get(name, name) for name in names]
            message = str(error).lower()
            assert any(word in message for word in words), (
                error,
                given_values,
            )
    except Exception as error:
        error.add_note(f"The arguments were {given_values!r}.")
        raise


# --- Values ----------------------------------------------------------------

NAMES = [
    *("conv_a", "act", "act:0", "act:1", "inner", "inner/conv_b", "flat"),
    *("dense", "image", "upstream", "downstream", "hidden", "out", "-1", "-2"),
    *("**", "*", "..", "-3..", "conv_a..flat", "conv_*", "[", "?", "/", ""),
    *(":", ":9", "-0", "-99", "f", "extra", "head", "adapters", "fusion"),
    *("auto", "concat", "\x00", "é", "a b"),
]
SEGMENTS = st.one_of(
    st.sampled_from(NAMES),
    st.sampled_from(["9", "-9", "a/", "**/"]).map(lambda x: x * 4400),
    st.text(max_size=5),
    st.text(alphabet="*?[]!.-:/ab01", max_size=8),
)
PATHS = st.one_of(
    SEGMENTS,
    st.lists(SEGMENTS, max_size=4).map("/".join),
    st.tuples(SEGMENTS, SEGMENTS).map("..".join),
)
ODD = [
    *(object(), object, len, layers.Dense, keras, Ellipsis),
    *(2**70, -(2**70), 1j, b"", b"ab", slice(1), range(3), {1, 2}, frozenset()),
    *(np.array(3), np.array([1, 2]), np.array([[1]]), np.zeros((0,))),
    *(np.array(["a"]), np.array(None), np.float32(1), np.int64(4), np.True_),
]
# Made when they are drawn: Keras draws seeds for layers, and strategies must
# not draw numbers of their own.
MAKERS = [
    *(lambda: layers.Dense(2), lambda: layers.ReLU(), lambda: layers.Add()),
    *(lambda: adapters.DenseAdapter(), lambda: adapters.PCAAdapter(1)),
    *(lambda: kc.Injection("hidden"), lambda: kc.Injection("out", "replace")),
    *(lambda: kc.LoRA(2), lambda: kc.LayerwiseDecay(0.1, 0.5)),
    *(lambda: kc.L2SP(0.1), lambda: keras.Input((2,))),
]


class Maker:
    """Stands for an object that is made when it is drawn."""

    def __init__(self, position):
        self.make = MAKERS[position]


def made(value):
    """Returns a drawn value with the objects that it stands for."""
    if isinstance(value, Maker):
        return value.make()
    if isinstance(value, dict):
        return {key: made(x) for key, x in value.items()}
    plain = type(value) in (list, tuple)
    return type(value)(map(made, value)) if plain else value


LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 9),
    st.floats(),
    PATHS,
    st.sampled_from(ODD),
    st.builds(Maker, st.integers(0, len(MAKERS) - 1)),
)
KEYS = st.one_of(PATHS, PATHS, st.none(), st.integers(-2, 3), st.booleans())


def containers(values):
    return st.one_of(
        st.lists(values, max_size=3),
        st.lists(values, max_size=2).map(tuple),
        st.dictionaries(KEYS, values, max_size=3),
    )


THINGS = st.one_of(LEAVES, containers(st.one_of(LEAVES, containers(LEAVES))))
SOURCES = st.sampled_from(["f", "g", "extra"])
SHAPES = st.lists(st.one_of(st.none(), st.integers(0, 5)), max_size=5)
DATA = [
    *(IMAGES, IMAGES[:1], IMAGES[:, :2], IMAGES.tolist(), TARGETS),
    *((IMAGES, TARGETS), [IMAGES, TARGETS], {"inputs": IMAGES}, [(IMAGES,)]),
    *({"inputs": IMAGES[:3], "b": IMAGES}, [], (), [[1], [2, 3]]),
    *(np.array(["a", "b"]), np.array(3.0), np.zeros((0, 3)), np.zeros((4,))),
    *(np.full((4, 3), np.nan), np.zeros((4, 3), complex), np.zeros((4, 0))),
    *(np.array([None] * 4), np.zeros((3,), "M8[s]"), np.zeros((2,) * 5)),
    *([np.zeros((2, 3)), np.zeros((2, 4))], [np.array(["a", "b"])]),
]
# By position: Hypothesis writes out what it samples from.
ARRAYS = st.integers(0, len(DATA) - 1).map(DATA.__getitem__)
ARGUMENTS = {
    "upstream": THINGS,
    "downstream": THINGS,
    "taps": st.one_of(
        THINGS,
        st.lists(PATHS, max_size=3),
        st.dictionaries(SOURCES, PATHS, max_size=2),
    ),
    "adapters": st.one_of(THINGS, st.dictionaries(SOURCES, THINGS)),
    "fusion": st.one_of(st.sampled_from(["concat", "add", None]), THINGS),
    "inject": st.one_of(THINGS, st.dictionaries(SOURCES, THINGS)),
    "inputs": THINGS,
    "extra_inputs": st.one_of(
        THINGS, st.dictionaries(SOURCES, st.one_of(THINGS, SHAPES))
    ),
    "downstream_input": st.one_of(
        st.sampled_from(["features", "inputs", "both"]), THINGS
    ),
    "head": st.one_of(THINGS, st.dictionaries(SOURCES, THINGS)),
    "preprocess": THINGS,
    "trainable": st.one_of(THINGS, st.dictionaries(PATHS, st.booleans())),
    "learning_rates": st.one_of(THINGS, st.dictionaries(PATHS, LEAVES)),
    "retention": THINGS,
    "name": THINGS,
}


def drawn_arguments(world, draw):
    """Arguments of which some are drawn; returns their names too."""
    names = draw(
        st.lists(
            st.sampled_from(list(ARGUMENTS)),
            min_size=1,
            max_size=3,
            unique=True,
        )
    )
    arguments = {
        "upstream": world.upstream,
        "downstream": draw(st.sampled_from([None, world.downstream])),
        "taps": {"f": "flat", "g": "dense"},
    }
    return arguments | {name: draw(ARGUMENTS[name]) for name in names}


# --- What is tried ---------------------------------------------------------


@fuzzed(180, 4000)
def test_path_patterns_select_or_are_refused(world, draw):
    pattern = draw(st.one_of(PATHS, THINGS))
    if isinstance(pattern, str):
        attempt(world, lambda: select(world.graph, pattern), pattern)
    which = draw(st.sampled_from([kc.list_taps, kc.truncate]))
    attempt(world, lambda: which(world.upstream, pattern), which, pattern)


@fuzzed(250, 6000)
def test_arguments_are_planned_or_refused(world, draw):
    arguments = drawn_arguments(world, draw)
    attempt(
        world,
        lambda: make_plan(Arguments(**arguments)),
        arguments,
        names=[*ARGUMENTS, "path", "network", "feature", "output"],
    )


@fuzzed(40, 1500)
def test_cascades_are_built_or_refused(world, draw):
    arguments = drawn_arguments(world, draw)
    attempt(world, lambda: kc.build_cascade(**arguments), arguments)


@fuzzed(30, 1000)
def test_interfaces_are_reported_or_refused(world, draw):
    arguments = drawn_arguments(world, draw)
    attempt(world, lambda: kc.check_interface(**arguments), arguments)


PUBLIC = [
    *(adapters.DenseAdapter, adapters.PCAAdapter, adapters.SpatialAdapter),
    *(adapters.TokenAdapter, adapters.LogitsAdapter, adapters.LabelMapAdapter),
    *(kc.Injection, kc.LoRA, kc.LayerwiseDecay, kc.L2SP, kc.EWC, kc.LwF),
    *(kc.FeatureCache, kc.DriftMonitor),
]


@fuzzed(200, 4000)
def test_classes_are_made_or_refuse(world, draw):
    kind = draw(st.sampled_from(PUBLIC))
    needed, possible = [], []
    for name, parameter in inspect.signature(kind).parameters.items():
        required = parameter.default is inspect.Parameter.empty
        (needed if required else possible).append(name)
    optional = st.sampled_from([None, *possible])
    more = {*draw(st.lists(optional, max_size=2))} - {None}
    arguments = {name: draw(THINGS) for name in (*needed, *more)}
    made = []
    attempt(world, lambda: made.append(kind(**arguments)), kind, arguments)
    if made and isinstance(made[0], keras.Layer):
        shape, dtype = draw(SHAPES), draw(st.sampled_from(["float32", "bool"]))
        tensor = keras.KerasTensor((None, *shape), dtype)
        attempt(world, lambda: made[0](tensor), kind, arguments, tensor)


LEARNERS = [
    lambda: adapters.PCAAdapter(2),
    lambda: adapters.PCAAdapter(0.9),
    lambda: adapters.LogitsAdapter(),
    lambda: adapters.LabelMapAdapter({0: 1}, 3),
    lambda: adapters.DenseAdapter(),
]


@fuzzed(80, 1500)
def test_adapters_learn_or_refuse(world, draw):
    adapter = draw(st.sampled_from(LEARNERS))()
    data = draw(st.one_of(ARRAYS, ARRAYS, THINGS))
    size = draw(st.one_of(st.just(4), THINGS))
    attempt(world, lambda: adapter.adapt(data, size), adapter, data, size)
    attempt(world, lambda: adapter.with_units(size), adapter, size)
    attempt(
        world, lambda: world.cascade.adapt(data, verbose=False), "adapt", data
    )
    if not world.cascade.adapters["f"].fitted:
        world.cascade.adapt(IMAGES, verbose=False)


METHODS = ["freeze", "unfreeze", "get_layer"]
FUNCTIONS = [kc.split, kc.list_taps, kc.testing.check_cascade]


@fuzzed(80, 1500)
def test_methods_answer_or_refuse(world, draw):
    name, value = draw(st.sampled_from(METHODS)), draw(THINGS)
    attempt(world, lambda: getattr(world.cascade, name)(value), name, value)
    world.cascade.freeze("upstream")
    function = draw(st.sampled_from(FUNCTIONS))
    arguments = [value, IMAGES] if "check" in function.__name__ else [value]
    attempt(world, lambda: function(*arguments), function, value)
    changed = draw(st.sampled_from([*ARGUMENTS, "bogus"]))
    changes = {changed: draw(ARGUMENTS.get(changed, THINGS))}
    attempt(world, lambda: world.cascade.rebuild(**changes), changes)


STAGES = st.one_of(
    THINGS,
    st.sampled_from(["gradual", "lp-ft"]),
    st.dictionaries(KEYS, st.one_of(PATHS, st.lists(PATHS, max_size=2))),
)


@fuzzed(60, 1000)
def test_stages_and_caches_train_or_refuse(world, draw):
    arguments = draw(
        st.one_of(
            st.fixed_dictionaries({"unfreeze": STAGES}),
            st.fixed_dictionaries({"cache_features": THINGS}),
        )
    )
    cache = arguments.get("cache_features")
    if isinstance(cache, str):  # a folder of its own for each
        arguments["cache_features"] = f"{world.folder}/{cache}"
    attempt(
        world,
        lambda: world.cascade.fit(
            IMAGES, TARGETS, epochs=2, batch_size=8, verbose=0, **arguments
        ),
        arguments,
        names=[*arguments, "FeatureCache".lower(), "path", "folder", "epoch"],
    )
    world.cascade.freeze("upstream")


# --- The console -----------------------------------------------------------

OPTIONS = [
    *("--json", "--help", "--format", "--quantize", "--rows", "--bogus", "-x"),
    *("float16", "int8", "nan", "1e999", "**/" * 50, "a/" * 500, "out.bogus"),
]


def write_files(folder, network):
    """Returns the names of files that are good, damaged and missing."""
    network.save(folder / "good.keras")
    good = (folder / "good.keras").read_bytes()
    (folder / "cut.keras").write_bytes(good[: len(good) // 2])
    (folder / "text.keras").write_text("hello")
    (folder / "empty.keras").write_bytes(b"")
    (folder / "folder.keras").mkdir(exist_ok=True)
    for name, config in {"list": "[]", "deep": "[" * 100_000}.items():
        with zipfile.ZipFile(folder / f"{name}.keras", "w") as archive:
            archive.writestr("config.json", config)
            archive.writestr("metadata.json", "{}")
            archive.writestr("model.weights.h5", "none")
    np.save(folder / "o.npy", np.array([{}], object))
    names = sorted(str(path) for path in folder.iterdir())
    return [*names, "missing.keras", "missing.npy", "", "/", "a\x00.keras"]


@fuzzed(90, 1500)
def test_the_console_answers_or_explains_in_a_line(world, draw):
    if not hasattr(world, "files"):
        console = world.folder / "console"
        console.mkdir()
        world.files = write_files(console, world.upstream)
    rest = st.one_of(st.sampled_from(world.files), st.sampled_from(OPTIONS))
    arguments = [
        draw(st.sampled_from(["taps", "inspect", "export", "bogus"])),
        draw(st.sampled_from(world.files)),
        *draw(st.lists(st.one_of(rest, PATHS), max_size=4)),
    ]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            status = main(arguments)
        except SystemExit as stop:
            status = stop.code
    assert status in (0, 1, 2), arguments
    if status:
        assert err.getvalue().startswith("keras-cascade"), arguments
        assert len(err.getvalue().splitlines()) == 1, arguments
