"""Tests on random networks: taps equal the original's, files keep all."""

import tempfile
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import keras_cascade as kc
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import read_graph

layers = keras.layers
WIDTH = 3
FEW = settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    # Each example builds networks: shrinking would take minutes.
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)

# A plan is a list of steps, each a kind and the indices of its arguments among
# the tensors so far: 0 is the input, i the result of step i.
ONE = ("dense", "times", "relu", "dropout", "normalise", "flip")
TWO = ("add", "concatenate", "subtract", "shared")


# Pairs of networks take twice as long to build.
FEWER = settings(FEW, max_examples=6)
# Other networks in each run.
MANY = settings(FEW, derandomize=False, max_examples=60)


@st.composite
def plans(draw, levels=2, most=5):
    """A random network: its steps, and the plans of the networks inside."""
    nest = levels and draw(st.booleans())
    inner = draw(plans(levels - 1, 3)) if nest else None
    kinds = ONE + TWO + (("nested", "nested twice") if inner else ())
    steps = []
    for count in range(draw(st.integers(2, most))):
        place = st.integers(0, count)
        steps.append((draw(st.sampled_from(kinds)), draw(place), draw(place)))
    return steps, inner


class Net:
    """A plan as a Keras network, and as a program to run without its graph."""

    def __init__(self, plan, name="net"):
        self.steps, self.inner = plan
        self.layers, self.nets = {}, {}
        x = keras.Input((WIDTH,), name="x")
        self.network = keras.Model(x, self._run(x, {}), name=name)

    def values(self, inputs):
        """Returns the expected value of each path, computed call by call."""
        values = {}
        self._run(inputs, values)
        return values

    def _run(self, x, values):
        values["x"] = x
        tensors, self.counts = [x], {}
        used = set()
        for number, (kind, i, j) in enumerate(self.steps):
            places = (i,) if kind in (*ONE, "nested") else (i, j)
            used.update(places)
            arguments = [tensors[place] for place in places]
            step = getattr(self, "_" + kind.replace(" ", "_"))
            tensors.append(step(f"s{number}", values, *arguments))
        # Every step reaches the output, so that all are in the graph.
        ends = [t for n, t in enumerate(tensors) if n not in used]
        ends = ends if len(ends) > 1 else [*ends, x]
        return self._call("out", layers.Add, values, ends)

    def _call(self, name, make, values, inputs):
        if name not in self.layers:
            self.layers[name] = make(name=name)
        values[name] = self.layers[name](inputs)
        return values[name]

    def _operation(self, name, values, output):
        """Notes an output by the kind of its operation and its number there."""
        number = self.counts.get(name, 0)
        self.counts[name] = number + 1
        values[f"{name}_{number}" if number else name] = output
        return output

    def _twice(self, name, make, values, x, y):
        if name not in self.layers:
            self.layers[name] = make()
        results = [self.layers[name](x), self.layers[name](y)]
        values |= {f"{name}:0": results[0], f"{name}:1": results[1]}
        return results

    def _dense(self, name, values, x):
        def dense(name):
            return layers.Dense(WIDTH, activation="tanh", name=name)

        return self._call(name, dense, values, x)

    def _times(self, name, values, x):
        return self._operation("multiply", values, x * 1.5)

    def _relu(self, name, values, x):
        return self._operation("relu", values, keras.ops.relu(x))

    def _flip(self, name, values, x):
        return self._operation("flip", values, keras.ops.flip(x, axis=-1))

    def _dropout(self, name, values, x):
        return self._call(
            name, lambda name: layers.Dropout(0.5, seed=1, name=name), values, x
        )

    def _normalise(self, name, values, x):
        def norm(name):
            return layers.BatchNormalization(
                moving_mean_initializer=keras.initializers.RandomNormal(seed=2),
                gamma_initializer=keras.initializers.RandomNormal(1.0, seed=3),
                name=name,
            )

        return self._call(name, norm, values, x)

    def _add(self, name, values, x, y):
        return self._operation("add", values, x + y)

    def _subtract(self, name, values, x, y):
        return self._call(name, layers.Subtract, values, [x, y])

    def _concatenate(self, name, values, x, y):
        both = self._call(name, layers.Concatenate, values, [x, y])
        return self._dense(f"{name}_dense", values, both)

    def _shared(self, name, values, x, y):
        def make():
            return layers.Dense(WIDTH, activation="tanh", name=name)

        return self._call(
            f"{name}_sub",
            layers.Subtract,
            values,
            self._twice(name, make, values, x, y),
        )

    def _nested(self, name, values, x):
        return self._nested_calls(name, values, [x])[0]

    def _nested_twice(self, name, values, x, y):
        results = self._nested_calls(name, values, [x, y])
        return self._call(f"{name}_mul", layers.Multiply, values, results)

    def _nested_calls(self, name, values, inputs):
        if name not in self.nets:
            self.nets[name] = Net(self.inner, name)
        net = self.nets[name]
        results = []
        for number, x in enumerate(inputs):
            key = f"{name}:{number}" if len(inputs) > 1 else name
            results.append(net.network(x))
            values[key] = results[-1]
            if not isinstance(x, keras.KerasTensor):
                inside = net.values(x)
                values |= {f"{key}/{path}": v for path, v in inside.items()}
        return results


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(0)
    return random.normal(size=(4, WIDTH)).astype("float32")


# Rightly, there is a warning that Keras's own numbers are ambiguous.
own_numbers = pytest.mark.filterwarnings(
    "ignore:.*is the operation that Keras calls"
)


@own_numbers
@FEW
@given(plan=plans(), data=st.data())
def test_any_tap_equals_the_originals_value(rows, plan, data):
    _check_taps(rows, plan, data)


@own_numbers
@pytest.mark.large
@MANY
@given(plan=plans(), data=st.data())
def test_any_tap_of_many_networks_equals_the_originals_value(rows, plan, data):
    _check_taps(rows, plan, data)


def _check_taps(rows, plan, data):
    net = Net(plan)
    expected = net.values(keras.ops.convert_to_tensor(rows))
    chosen = _some_of(expected, data)
    taps = {f"tap_{number}": path for number, path in enumerate(chosen)}
    cascade = kc.build_cascade(
        net.network, taps=taps, adapters=None, fusion=None
    )
    for name, given_value in cascade(rows).items():
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(given_value),
            keras.ops.convert_to_numpy(expected[taps[name]]),
            rtol=1e-5,
            atol=1e-6,
            err_msg=taps[name],
        )


@FEW
@given(plan=plans())
def test_the_listed_taps_are_the_networks_operations(rows, plan):
    net = Net(plan)
    expected = set(net.values(keras.ops.convert_to_tensor(rows)))
    assert {tap.path for tap in kc.list_taps(net.network)} == expected


@own_numbers
@FEW
@given(plan=plans(), data=st.data())
def test_saving_and_loading_is_the_identity(rows, plan, data):
    _check_saving(rows, plan, data)


@own_numbers
@pytest.mark.large
@MANY
@given(plan=plans(), data=st.data())
def test_saving_and_loading_many_networks_is_the_identity(rows, plan, data):
    _check_saving(rows, plan, data)


def _check_saving(rows, plan, data):
    net = Net(plan)
    expected = net.values(keras.ops.convert_to_tensor(rows))
    chosen = _some_of(expected, data)
    cascade = kc.build_cascade(net.network, taps=chosen, head=2)
    for _, layer in leaf_layers(cascade):
        layer.trainable = data.draw(st.booleans())
    with tempfile.TemporaryDirectory() as folder:
        cascade.save(Path(folder) / "cascade.keras")
        loaded = keras.saving.load_model(Path(folder) / "cascade.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(cascade(rows)),
        keras.ops.convert_to_numpy(loaded(rows)),
    )
    assert loaded.taps == cascade.taps
    assert _paths_and_flags(loaded) == _paths_and_flags(cascade)
    assert _operations(loaded) == _operations(cascade)


MERGES = ("add", "multiply", "film", "concat")


@own_numbers
@FEWER
@given(first=plans(), second=plans(), data=st.data())
def test_injections_start_silent_and_are_kept(rows, first, second, data):
    _check_pair(rows, first, second, data)


@own_numbers
@pytest.mark.large
@MANY
@given(first=plans(), second=plans(), data=st.data())
def test_injections_into_many_networks_start_silent_and_are_kept(
    rows, first, second, data
):
    _check_pair(rows, first, second, data)


def _check_pair(rows, first, second, data):
    """Checks the originals, the first predictions, names, and files."""
    up, down = Net(first, "up"), Net(second, "down")
    before = [_state(net.network) for net in (up, down)]
    inject = _injections(down, rows, data)
    cascade = _joined(up, down, rows, data, inject)
    for net, state in zip((up, down), before, strict=True):
        _assert_same_state(_state(net.network), state)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(cascade(rows)),
        keras.ops.convert_to_numpy(down.network(rows)),
        err_msg=str(inject),
    )
    _randomise(cascade)
    paths = [variable.path for variable in cascade.variables]
    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} <= set(cascade.blocks)
    _assert_same_after_load(rows, cascade)


@own_numbers
@FEWER
@given(first=plans(), second=plans(), data=st.data())
def test_a_replacement_prunes_the_layers_before_it(rows, first, second, data):
    _check_replacement(rows, first, second, data)


@own_numbers
@pytest.mark.large
@MANY
@given(first=plans(), second=plans(), data=st.data())
def test_a_replacement_prunes_the_layers_before_it_in_many_networks(
    rows, first, second, data
):
    _check_replacement(rows, first, second, data)


def _check_replacement(rows, first, second, data):
    """Checks that exactly the layers that still matter have variables."""
    up, down = Net(first, "up"), Net(second, "down")
    sites = [path for path in _sites(down, rows) if path != "out"]
    site = data.draw(st.sampled_from(sites))
    inject = {"tap": kc.Injection(site, merge="replace")}
    cascade = kc.build_cascade(
        up.network, down.network, taps={"tap": "out"}, inject=inject
    )
    expected = _weighted_layers_without(down.network, tuple(site.split("/")))
    found = {
        variable.path.split("/", 1)[1].rsplit("/", 1)[0]
        for variable in cascade.blocks["downstream"].weights
    }
    assert found == expected, site
    _assert_same_after_load(rows, cascade)


def _weighted_layers_without(network, site, prefix=()):
    """Returns the weighted layers that the output depends on without a call.

    Layers of nested networks are included, if the output of their network
    depends on them.
    """
    graph = read_graph(network)
    found, seen = set(), set()
    stack = [(graph, tensor, ()) for tensor in graph.outputs]
    while stack:
        level, tensor, frames = stack.pop()
        node, index = level.sources[id(tensor)]
        address = (*(call.key for _, call in frames), node.key)
        if address == site or (address, id(tensor)) in seen:
            continue
        seen.add((address, id(tensor)))
        if node.is_input and frames:
            outer, call = frames[-1]
            place = [id(x) for x in level.inputs].index(id(tensor))
            stack.append((outer, call.inner_arguments[place], frames[:-1]))
        elif node.inner is not None:
            deeper = (*frames, (level, node))
            stack.append((node.inner, node.inner.outputs[index], deeper))
        else:
            names = [*(call.name for _, call in frames), node.name]
            if getattr(node.operation, "weights", None):
                found.add("/".join(names))
            stack += [(level, x, frames) for x in node.tensors]
    return found


@own_numbers
@FEW
@given(plan=plans(), data=st.data())
def test_layers_that_no_tap_needs_are_pruned(rows, plan, data):
    """Keras's own model from the input to the taps' outputs has the same."""
    net = Net(plan)
    called_once = net.values(keras.ops.convert_to_tensor(rows))
    names = [
        layer.name
        for layer in net.network.layers
        if layer.name in called_once and not isinstance(layer, keras.Model)
    ]
    chosen = data.draw(
        st.lists(st.sampled_from(names), min_size=1, unique=True)
    )
    outputs = [net.network.get_layer(name).output for name in chosen]
    expected = keras.Model(net.network.inputs, outputs)
    cascade = kc.build_cascade(
        net.network, taps=chosen, adapters=None, fusion=None
    )
    block = cascade.blocks["upstream"]
    assert {x.name for x in block.layers if x.weights} == {
        x.name for x in expected.layers if x.weights
    }
    assert len(block.weights) == len(expected.weights)


def _joined(up, down, rows, data, inject):
    paths = _some_of(up.values(keras.ops.convert_to_tensor(rows)), data)
    names = list(inject)
    taps = {
        name: data.draw(st.sampled_from(paths), label=name) for name in names
    }
    return kc.build_cascade(up.network, down.network, taps=taps, inject=inject)


def _injections(down, rows, data):
    """Returns one to three taps, each for one or two layers."""
    site = st.builds(
        kc.Injection,
        st.sampled_from(_sites(down, rows)),
        st.sampled_from(MERGES),
    )
    several = data.draw(
        st.lists(st.lists(site, min_size=1, max_size=2), min_size=1, max_size=3)
    )
    return {f"tap_{number}": sites for number, sites in enumerate(several)}


def _sites(net, rows):
    """Returns all paths but those inside networks that are called twice."""
    paths = net.values(keras.ops.convert_to_tensor(rows))
    return sorted(
        path for path in paths if ":" not in "".join(path.split("/")[:-1])
    )


def _state(network):
    values = [keras.ops.convert_to_numpy(v) + 0 for v in network.variables]
    paths = [v.path for v in network.variables]
    flags = [layer.trainable for _, layer in leaf_layers(network)]
    return values, paths, flags, network.get_config()


def _assert_same_state(found, expected):
    for one, other in zip(found[0], expected[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert found[1:] == expected[1:]


def _randomise(cascade):
    random = np.random.default_rng(1)
    for variable in cascade.weights:
        if variable.path.startswith("adapters/"):
            variable.assign(random.normal(size=variable.shape))


def _assert_same_after_load(rows, cascade):
    with tempfile.TemporaryDirectory() as folder:
        cascade.save(Path(folder) / "cascade.keras")
        loaded = keras.saving.load_model(Path(folder) / "cascade.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(cascade(rows)),
        keras.ops.convert_to_numpy(loaded(rows)),
    )
    assert loaded.spec.inject == cascade.spec.inject
    assert _paths_and_flags(loaded) == _paths_and_flags(cascade)


def _some_of(paths, data):
    every = st.sampled_from(sorted(paths))
    return data.draw(st.lists(every, min_size=1, max_size=4, unique=True))


def _operations(cascade):
    """Returns the paths in topological order, as ranges take them."""
    return [tap.path for tap in kc.list_taps(cascade.blocks["upstream"])]


def _paths_and_flags(cascade):
    flags = [
        (path, layer.trainable)
        for path, layer in leaf_layers(cascade)
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    return [variable.path for variable in cascade.variables], flags
