"""The cut is the one computed by hand, and no other stores less."""

import itertools

import keras
import networkx
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.graph.block import Block
from keras_cascade.graph.cacheable import find_cacheable
from keras_cascade.graph.cutting import (
    RECOMPUTED,
    SINK,
    SOURCE,
    find_cut,
    nearest_minimum_cut,
    step_flops,
)
from keras_cascade.graph.flattening import as_program


def built(upstream, **arguments):
    return kc.build_cascade(upstream, head=3, **arguments)


def cut_of(model, nondeterministic=None):
    return find_cut(as_program(model), nondeterministic or {})


def stored(cut):
    return {x.name: x.bytes for x in cut.stored}


def maps(*following, size=8):
    x = inputs = keras.Input((size, size, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    for layer in following:
        x = layer(x)
    return keras.Model(inputs, x, name="maps")


def test_pooling_is_before_the_cut():
    pool = layers.GlobalAveragePooling2D(name="pool")
    cut = cut_of(built(maps(pool)))
    assert stored(cut) == {"upstream/pool": 4 * 4}
    convolution, pooled = 2 * 4 * 27 * 64, 4
    assert cut.frozen_flops == convolution + pooled
    assert cut.recomputed_flops == 0
    assert all(s.name.startswith("head/") for s in cut.trainable.steps)


@pytest.mark.parametrize(("side", "crosses"), [(4, "wide"), (16, "pool")])
def test_a_widening_layer_is_after_the_cut_if_it_is_cheap(side, crosses):
    network = maps(
        layers.Conv2D(64, 3, padding="same", name="heavy"),
        layers.Conv2D(4, 3, padding="same", name="narrow"),
        layers.GlobalAveragePooling2D(name="pool"),
        layers.Dense(512, name="wide"),
        size=side,
    )
    cut = cut_of(built(network))
    # 4,096 operations: 2.6 % of those before on the small image, and 0.17 %.
    assert stored(cut).keys() == {f"upstream/{crosses}"}
    assert cut.recomputed_flops == (0 if crosses == "wide" else 4096)


def test_a_copy_that_is_resized_is_not_stored():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(32, 3, padding="same", name="heavy")(x)
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    up = layers.UpSampling2D(2, name="up")(x)
    both = {"small": x, "large": up}
    down = {
        "small": keras.Input((8, 8, 4), name="small"),
        "large": keras.Input((16, 16, 4), name="large"),
    }
    summed = layers.Concatenate(name="joined")(
        [
            layers.Flatten(name="flat1")(down["small"]),
            layers.Flatten(name="flat2")(down["large"]),
        ]
    )
    cascade = kc.build_cascade(
        keras.Model(inputs, both, name="up"),
        keras.Model(down, layers.Dense(2, name="out")(summed), name="down"),
        adapters=None,
        fusion=None,
    )
    cut = cut_of(cascade)
    # 1,024 operations for 4,096 bytes, of 300,000.
    assert stored(cut) == {"upstream/conv": 8 * 8 * 4 * 4}
    assert cut.recomputed_flops == 16 * 16 * 4


def test_partly_frozen_networks_are_cut_inside():
    network = maps(
        layers.Conv2D(2, 3, padding="same", name="conv2"),
        layers.GlobalAveragePooling2D(name="pool"),
    )
    cut = cut_of(built(network, trainable={"upstream/conv2": True}))
    assert stored(cut) == {"upstream/conv": 8 * 8 * 4 * 4}


def test_inputs_of_the_trainable_part_are_borders():
    pool = layers.GlobalAveragePooling2D(name="pool")
    cut = cut_of(built(maps(pool), extra_inputs={"side": (2,)}))
    assert stored(cut) == {"upstream/pool": 16}
    assert [x.name for x in cut.borders if x.is_input] == ["side"]


def test_without_anything_frozen_there_is_no_frozen_part():
    cut = cut_of(built(maps(), trainable=True))
    assert not cut.frozen.steps and not cut.blocked
    assert [x.name for x in cut.borders] == ["inputs"]


def test_frozen_outputs_are_stored():
    model = maps(layers.GlobalAveragePooling2D(name="pool"))
    model.trainable = False
    cut = cut_of(model)
    assert stored(cut) == {"pool": 16}
    assert not cut.trainable.steps


@pytest.mark.parametrize("active", [True, False])
def test_augmentation_ends_the_frozen_part(active):
    augmentation = layers.RandomFlip(name="flip")
    augmentation.trainable = active
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(1 / 255, name="scale")(x)
    x = augmentation(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    cut = cut_of(built(keras.Model(inputs, x, name="augmented")))
    assert [b.name for b in cut.blocked] == ["upstream/flip"]
    assert "augmentation" in cut.blocked[0].reason
    assert not any("conv" in s.name for s in cut.frozen.steps)


def test_noise_that_is_not_frozen_ends_the_frozen_part():
    network = maps(
        layers.GaussianNoise(0.1, name="noise"),
        layers.GlobalAveragePooling2D(name="pool"),
    )
    cut = cut_of(built(network, trainable={"upstream/noise": True}))
    assert [b.name for b in cut.blocked] == ["upstream/noise"]
    assert stored(cut) == {"upstream/conv": 8 * 8 * 4 * 4}
    frozen = cut_of(built(network))
    assert not frozen.blocked and stored(frozen) == {"upstream/pool": 16}


def test_an_added_loss_ends_the_frozen_part():
    network = maps(
        layers.Conv2D(2, 3, activity_regularizer="l2", name="regular"),
        layers.GlobalAveragePooling2D(name="pool"),
    )
    cut = cut_of(built(network))
    assert [b.name for b in cut.blocked] == ["upstream/regular"]
    assert "loss" in cut.blocked[0].reason


def test_nondeterministic_steps_are_in_the_trainable_part():
    network = maps(layers.GlobalAveragePooling2D(name="pool"))
    cut = cut_of(built(network), {"upstream/pool": "counts its calls"})
    assert stored(cut) == {"upstream/conv": 8 * 8 * 4 * 4}
    assert cut.blocked[0].reason == "counts its calls"


def test_open_sizes_have_no_bytes():
    x = inputs = keras.Input((None, 4), name="sequence")
    x = layers.Dense(3, name="dense")(x)
    model = keras.Model(inputs, x, name="open")
    model.trainable = False
    cut = cut_of(model)
    assert stored(cut) == {"dense": None} and cut.frozen_flops is None


def test_a_step_that_both_parts_need_is_run_twice_where_that_is_cheaper():
    inputs = keras.Input((16, 16, 3), name="image")
    x = layers.Rescaling(1 / 255, name="scale")(inputs)
    heavy = layers.Conv2D(32, 3, name="heavy", trainable=False)(x)
    heavy = layers.GlobalAveragePooling2D(name="pool")(heavy)
    own = layers.GlobalAveragePooling2D(name="own_pool")(
        layers.Conv2D(4, 3, name="own")(x)
    )
    both = layers.Concatenate(name="both")([heavy, own])
    cut = cut_of(keras.Model(inputs, layers.Dense(2, name="out")(both)))
    # 768 operations, or the image a second time.
    assert stored(cut) == {"pool": 32 * 4}
    assert [x.name for x in cut.borders if x.is_input] == ["image"]
    assert {s.name for s in cut.frozen.steps} == {"scale", "heavy", "pool"}
    assert cut.recomputed_flops == 16 * 16 * 3
    assert cut.frozen_flops == 2 * 27 * 32 * 14 * 14 + 32


def test_an_image_is_stored_after_it_shrinks():
    inputs = keras.Input((64, 64, 3), name="image")
    x = layers.Resizing(8, 8, name="resize")(inputs)
    x = layers.Conv2D(64, 3, name="own")(x)
    cut = cut_of(keras.Model(inputs, x))
    assert stored(cut) == {"resize": 8 * 8 * 3 * 4}
    assert not any(x.is_input for x in cut.borders)


def test_resizing_for_a_network_blocks_nothing():
    pool = layers.GlobalAveragePooling2D(name="pool")
    cascade = built(
        {"one": maps(pool, size=8), "other": maps(pool, size=4)},
        inputs={"one": "image", "other": "image"},
    )
    cut = cut_of(cascade)
    assert stored(cut) == {"one/pool": 16, "other/pool": 16}
    assert not cut.blocked


def test_preprocessing_that_takes_training_blocks_nothing():
    pool = layers.GlobalAveragePooling2D(name="pool")
    resize = layers.Resizing(8, 8, name="resize")
    cut = cut_of(built(maps(pool), preprocess=resize))
    assert stored(cut) == {"upstream/pool": 16}
    assert not cut.blocked
    assert cut.frozen.steps[0].name == "preprocessing/upstream/resize"


def test_two_taps_that_are_joined_are_stored_separately():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = low = layers.Conv2D(4, 3, padding="same", name="low")(x)
    x = layers.Conv2D(6, 3, padding="same", name="high")(x)
    network = keras.Model(
        inputs,
        {
            "low": layers.GlobalAveragePooling2D(name="pool_low")(low),
            "high": layers.GlobalAveragePooling2D(name="pool_high")(x),
        },
        name="both",
    )
    cut = cut_of(built(network))
    assert stored(cut) == {"upstream/pool_low": 16, "upstream/pool_high": 24}
    assert cut.recomputed_flops == 0  # joining computes nothing


def test_frozen_taps_are_stored_where_they_are_injected():
    x = inputs = keras.Input((8,), name="vector")
    x = layers.Dense(5, name="low")(x)
    upstream = keras.Model(inputs, layers.Dense(3, name="high")(x), name="up")
    x = inputs = keras.Input((8,), name="vector")
    x = layers.Dense(4, name="hidden")(x)
    downstream = keras.Model(
        inputs, layers.Dense(2, name="out")(x), name="down"
    )
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"low": "low"},
        inject={"low": "hidden"},
        downstream_input="inputs",
    )
    cut = cut_of(cascade)
    assert stored(cut) == {"upstream/low": 5 * 4}
    assert [x.name for x in cut.borders if x.is_input] == ["inputs"]


def test_of_two_upstreams_the_frozen_one_is_stored():
    pool = layers.GlobalAveragePooling2D(name="pool")
    cascade = built(
        {"one": maps(pool), "other": maps(pool)}, trainable={"other": True}
    )
    cut = cut_of(cascade)
    assert stored(cut) == {"one/pool": 16}
    assert [x.name for x in cut.borders if x.is_input] == ["inputs"]


def test_each_call_of_a_layer_is_a_step_of_its_own():
    shared = layers.Dense(4, name="shared", trainable=False)
    inputs = keras.Input((4,), name="vector")
    x = layers.Dense(4, name="trained")(shared(inputs))
    cut = cut_of(keras.Model(inputs, shared(x)))
    assert stored(cut) == {"shared:0": 16}
    assert [s.name for s in cut.trainable.steps] == ["trained", "shared:1"]


def test_networks_in_networks_are_cut_inside():
    x = inner_input = keras.Input((4,), name="inner_input")
    x = layers.Dense(3, name="first", trainable=False)(x)
    inner = keras.Model(inner_input, layers.Dense(4, name="last")(x), name="in")
    inputs = keras.Input((4,), name="vector")
    cut = cut_of(keras.Model(inputs, inner(inputs)))
    assert stored(cut) == {"in/first": 12}
    assert [s.name for s in cut.trainable.steps] == ["in/last"]


def test_each_output_that_is_used_is_stored():
    x = inputs = keras.Input((5, 4), name="sequence")
    x, state, _ = layers.LSTM(
        3, return_sequences=True, return_state=True, name="lstm"
    )(x)
    model = keras.Model(inputs, [layers.Dense(2, name="dense")(x), state])
    model.get_layer("lstm").trainable = False
    assert stored(cut_of(model)) == {"lstm/0": 5 * 3 * 4, "lstm/1": 3 * 4}


def test_cacheable_steps_that_nothing_uses_are_in_neither_part():
    x = inner_input = keras.Input((4,), name="inner_input")
    one = layers.Dense(3, name="one", trainable=False)(x)
    idle = layers.Dense(9, name="idle", trainable=False)(x)
    inner = keras.Model(inner_input, [one, idle], name="in")
    inputs = keras.Input((4,), name="vector")
    used, _ = inner(inputs)
    cut = cut_of(keras.Model(inputs, layers.Dense(2, name="out")(used)))
    assert [s.name for s in cut.frozen.steps] == ["in/one"]
    assert [s.name for s in cut.trainable.steps] == ["out"]


def test_embedding_alone_is_cheaper_than_its_features():
    x = inputs = keras.Input((6,), dtype="int32", name="words")
    x = layers.Embedding(9, 4, name="embed", trainable=False)(x)
    cut = cut_of(keras.Model(inputs, layers.LSTM(3, name="lstm")(x)))
    assert not cut.frozen.steps and "next to nothing" in cut.why_nothing()


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float16", 2), ("bfloat16", 2), ("int8", 1), ("bool", 1), ("int32", 4)],
)
def test_bytes_are_those_of_the_dtype(dtype, size):
    x = inputs = keras.Input((6,), name="vector")
    x = layers.Dense(5, name="dense", trainable=False)(x)
    x = keras.ops.cast(x, dtype)
    cut = cut_of(keras.Model(inputs, x))
    assert list(stored(cut).values()) == [5 * size]


@pytest.mark.parametrize("seed", range(10))
def test_no_other_cut_repeats_no_more_and_stores_less(seed):
    program = as_program(random_network(seed))
    cut = find_cut(program)
    cacheable = find_cacheable(program).steps
    costs = {
        s.name: 0
        if isinstance(s.operation, layers.Concatenate)
        else step_flops(program, s)
        for s in cacheable
    }
    whole = sum(step_flops(program, step) for step in program.steps)
    chosen = {s.name for s in cacheable if s in cut.trainable.steps}
    repeated = sum(costs[name] for name in chosen)
    assert repeated <= RECOMPUTED * whole
    others = [
        set(some)
        for count in range(len(costs) + 1)
        for some in itertools.combinations(costs, count)
        if sum(costs[name] for name in some) <= repeated
    ]
    least = min(price(program, cacheable, some) for some in others)
    assert price(program, cacheable, chosen) == least
    # Counted in either way: the borders are those of the cut.
    stored_bytes = sum(x.bytes for x in cut.stored)
    passed_by = sum(x.bytes for x in cut.borders if x.is_input)
    assert least == 2 * stored_bytes + passed_by


def price(program, cacheable, again):
    """The bytes of borders and outputs, those of inputs at half price."""
    kept = {s.name for s in cacheable} - again
    made = {r for s in program.steps if s.name in kept for r in s.outputs}
    inputs = {port.reference for port in program.inputs}
    running = list(program.steps)
    wanted = set(program.outputs.values())
    for step in reversed(running):
        idle = step.name in again and not wanted.intersection(step.outputs)
        if step.name not in kept and not idle:
            wanted.update(step.inputs)
    return sum(
        (2 if r in made else 1) * 4 * int(np.prod(program.shapes[r][1:]))
        for r in wanted & (made | inputs)
    )


def flow_network(edges):
    """A network of `(start, end, capacity)` from "s" to "t"; None is open."""
    network = networkx.DiGraph()
    network.add_nodes_from((SOURCE, SINK))
    ends = {"s": SOURCE, "t": SINK}
    for start, end, capacity in edges:
        capacities = {} if capacity is None else {"capacity": capacity}
        network.add_edge(
            ends.get(start, start), ends.get(end, end), **capacities
        )
    return network


@pytest.mark.parametrize("seed", range(25))
def test_a_minimum_cut_is_the_smallest_of_the_cheapest_source_sides(seed):
    draw = np.random.default_rng(seed)
    inner = range(int(draw.integers(1, 7)))
    pairs = itertools.permutations(["s", *inner, "t"], 2)
    edges = [
        (start, end, int(draw.integers(1, 6)))
        for start, end in pairs
        if draw.uniform() < 0.5
    ]
    sides = [
        {"s", *some}
        for count in range(len(inner) + 1)
        for some in itertools.combinations(inner, count)
    ]
    # In order of their size: the first of the cheapest is the smallest.
    costs = [
        sum(c for a, b, c in edges if a in x and b not in x) for x in sides
    ]
    cheapest = sides[costs.index(min(costs))]
    found = nearest_minimum_cut(flow_network(edges))
    assert {"s" if x is SOURCE else x for x in found} == cheapest


def test_of_equal_cuts_it_is_the_one_near_the_source():
    edges = [("s", "a", 3), ("a", "b", 3), ("b", "t", 3)]
    assert nearest_minimum_cut(flow_network(edges)) == {SOURCE}


def test_an_edge_without_a_capacity_is_not_cut():
    edges = [("s", "a", None), ("a", "t", 7)]
    assert nearest_minimum_cut(flow_network(edges)) == {SOURCE, "a"}


def random_network(seed):
    draw = np.random.default_rng(seed)
    inputs = keras.Input((int(draw.choice([3, 16])),), name="input")
    tensors = [inputs]
    for number in range(int(draw.integers(3, 9))):
        some = draw.choice(len(tensors), size=min(2, len(tensors)))
        given = [tensors[i] for i in dict.fromkeys(some.tolist())]
        x = given[0]
        if len(given) > 1:
            x = layers.Concatenate(name=f"join{number}")(given)
        width = int(draw.choice([1, 3, 40]))
        layer = layers.Dense(width, name=f"dense{number}")
        layer.trainable = bool(draw.uniform() < 0.25)
        tensors.append(layer(x))
    out = layers.Concatenate(name="joined")(tensors[-3:])
    return keras.Model(inputs, layers.Dense(2, name="last")(out), name="net")


@pytest.mark.parametrize("seed", range(6))
def test_the_parts_of_any_network_are_the_network_in_training_too(seed):
    block = Block(*random_layers(seed), name="block")
    before = [keras.ops.convert_to_numpy(v) for v in block.variables]
    for training in (False, True):
        expected = as_arrays(block(ROWS, training=training))
        moved = as_arrays(block.variables)
        for variable, value in zip(block.variables, before, strict=True):
            variable.assign(value)
        found = in_two_parts(cut_of(block), ROWS, training)
        equal(as_arrays(found), expected)
        equal(as_arrays(block.variables), moved)
        for variable, value in zip(block.variables, before, strict=True):
            variable.assign(value)


def test_such_networks_are_cut_in_the_middle_more_often_than_not():
    cuts = [cut_of(Block(*random_layers(seed))) for seed in range(6)]
    assert sum(bool(x.frozen.steps and x.trainable.steps) for x in cuts) > 3


ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")


def in_two_parts(cut, rows, training):
    """The outputs of both parts in turn, with the first stored between."""
    rows = keras.ops.convert_to_tensor(rows)
    given = {"x": rows}
    stored = cut.frozen(*(given[x.name] for x in cut.frozen.inputs))
    given |= {k: keras.ops.convert_to_numpy(x) for k, x in stored.items()}
    tensors = (given[x.name] for x in cut.trainable.inputs)
    tensors = map(keras.ops.convert_to_tensor, tensors)
    return cut.trainable(*tensors, training=training)


def as_arrays(tensors):
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(tensors)]


def equal(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def random_layers(seed):
    """Inputs and outputs of layers at random, three in five frozen."""
    draw = np.random.default_rng(seed)
    inputs = keras.Input((4,), name="x")
    tensors = [inputs]
    for number in range(int(draw.integers(3, 10))):
        some = draw.choice(len(tensors), size=2)
        given = [tensors[i] for i in dict.fromkeys(some.tolist())]
        x = given[0]
        if len(given) > 1:
            x = layers.Concatenate(name=f"join{number}")(given)
        kind = KINDS[int(draw.integers(len(KINDS)))]
        layer = kind(f"layer{number}", x.shape[-1])
        if not isinstance(layer, keras.Model):
            layer.trainable = number > 1 and bool(draw.uniform() < 0.4)
        tensors.append(layer(x))
    last = layers.Concatenate(name="last")(tensors[-3:])
    return inputs, {"out": layers.Dense(2, name="out")(last), "raw": tensors[2]}


def nested(name, width):
    inputs = keras.Input((width,), name="inner_input")
    x = layers.Dense(4, activation="relu", name="low")(inputs)
    model = Block(inputs, layers.Dense(3, name="high")(x) * 2.0, name=name)
    model.get_layer("low").trainable = False
    return model


KINDS = (
    lambda name, _: layers.Dense(5, activation="tanh", name=name),
    lambda name, _: layers.Dense(70, name=name),
    lambda name, _: layers.BatchNormalization(momentum=0.5, name=name),
    nested,
)
