"""Tests the rows of summary(): contents, sizes and rates of each block."""

import inspect

import keras
import pytest
from keras import layers

import keras_cascade as kc


@pytest.fixture(scope="module")
def networks():
    """Returns networks that all tests share: a cascade works on copies."""
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    encoder = keras.Model(inputs, x, name="encoder")
    expert = keras.Sequential(
        [keras.Input((9,)), layers.Dense(2, name="out")], name="expert"
    )
    return encoder, expert


def build(networks, **arguments):
    arguments = {
        "taps": {"map": "conv", "vector": "pool"},
        "adapters": {"map": kc.adapters.PCAAdapter(3), "vector": 4},
        "extra_inputs": {"side": (2,)},
        "learning_rates": {"downstream": 1e-4},
        "loss": "mse",
        **arguments,
    }
    return kc.build_cascade(*networks, **arguments)


def printed(cascade, **arguments):
    texts = []
    cascade.summary(print_fn=texts.append, **arguments)
    return texts


def rows(text):
    """Returns the cells of each block's row, the lines of a cell joined."""
    found, name = {}, ""
    for line in text.splitlines():
        if not line.startswith("│"):
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        name = cells[0] or name
        old = found.get(name, [""] * len(cells))
        found[name] = [
            " ".join(x).strip() for x in zip(old, cells, strict=True)
        ]
    return {name: cells[1:] for name, cells in found.items()}


def test_each_block_has_a_row(networks):
    (text,) = printed(build(networks))
    assert text.splitlines()[0] == "Cascade 'cascade'"
    assert rows(text) == {
        "upstream": [
            "encoder (Functional)",
            "map: conv vector: pool",
            "map: 6 × 6 × 4 vector: 4",
            "40",
            "0",
            "frozen",
        ],
        "adapters": [
            "map: PCAAdapter (not fitted) vector: DenseAdapter",
            "",
            "map: 3 vector: 4",
            "41",
            "20",
            "0.001",
        ],
        "fusion": [
            "concat: Concatenate extra_inputs: Concatenate",
            "",
            "9",
            "0",
            "0",
            "",
        ],
        "downstream": ["expert (Sequential)", "", "2", "20", "20", "0.0001"],
        "total": ["", "", "", "101", "40", ""],
    }


def test_an_uncompiled_cascade_shows_no_rates(networks):
    found = rows(printed(build(networks, loss=None))[0])
    assert found["downstream"][-1] == "not compiled"
    assert found["upstream"][-1] == "frozen"


def test_a_block_with_several_rates_shows_them_all(networks):
    rates = {"adapters/vector": 1e-2, "adapters/map": 3e-4}
    trainable = {"adapters": True}
    cascade = build(networks, trainable=trainable, learning_rates=rates)
    found = rows(printed(cascade)[0])
    assert found["adapters"][-1] == "0.0003 0.01"


def test_a_block_with_lora_shows_the_rank(networks):
    (text,) = printed(build(networks, trainable={"upstream": kc.LoRA(2)}))
    # A of 3 · 3 · 1 to 2 features, B of 2 to 4.
    assert rows(text)["upstream"][4] == "26 LoRA 2"


def test_parameter_counts_are_those_of_keras(networks):
    cascade = build(networks)
    found = rows(printed(cascade)[0])
    assert found["total"][3] == f"{cascade.count_params():,}"
    for name, block in cascade.blocks.items():
        assert found[name][3] == f"{block.count_params():,}"


def test_it_prints_in_the_given_width(networks, capsys):
    cascade = build(networks)
    cascade.summary()
    wide = capsys.readouterr().out
    cascade.summary(line_length=90)
    narrow = capsys.readouterr().out
    assert "Cascade 'cascade'" in wide
    assert max(map(len, narrow.splitlines())) <= 90
    assert max(map(len, wide.splitlines())) > 90


@pytest.mark.parametrize(
    "layer_range, names",
    [
        (["adapters", "fusion"], ["adapters", "fusion"]),
        (["fus", "down.*"], ["fusion", "downstream"]),
        (["fusion", "adapters"], ["adapters", "fusion"]),
    ],
)
def test_a_range_of_blocks_is_shown(networks, layer_range, names):
    """Keras's own tables of layers take the range in the same way."""
    cascade = build(networks)
    first, *others = printed(
        cascade, layer_range=layer_range, expand_nested=True
    )
    shown = [name for name in rows(first) if name in cascade.blocks]
    assert shown == names
    assert len(others) == len(names)
    stock = []
    keras.Model.summary(cascade, layer_range=layer_range, print_fn=stock.append)
    for name in cascade.blocks:
        assert (f"│ {name} (" in stock[0]) is (name in names)
    # The totals are of the whole model, as Keras's are.
    assert rows(first)["total"][3] == f"{cascade.count_params():,}"


@pytest.mark.parametrize("layer_range", [["nothing", "fusion"], ["fusion"]])
def test_a_range_of_no_blocks_names_the_blocks(networks, layer_range):
    with pytest.raises(ValueError, match=r"'upstream', 'adapters', 'fusion'"):
        build(networks).summary(layer_range=layer_range)


def test_positions_without_tables_of_layers_are_warned_of(networks):
    with pytest.warns(UserWarning, match=r"positions=.*expand_nested=True"):
        printed(build(networks), positions=[0.3, 0.6, 0.7, 1.0])


def test_it_takes_the_arguments_of_keras():
    expected = inspect.signature(keras.Model.summary).parameters
    assert list(inspect.signature(kc.Cascade.summary).parameters) == list(
        expected
    )


def test_the_layers_of_each_block_can_follow(networks):
    first, *others = printed(build(networks), expand_nested=True)
    assert "Cascade 'cascade'" in first
    text = "\n".join(others)
    for name in ("upstream", "adapters", "fusion", "downstream"):
        assert f'Model: "{name}"' in text
    assert "conv (Conv2D)" in text


def test_the_contents_of_a_head_are_its_layers(networks):
    cascade = kc.build_cascade(networks[0], taps="conv", head=3)
    assert rows(printed(cascade)[0])["head"][:3] == ["dense: Dense", "", "3"]


def test_injections_are_in_the_row_of_the_downstream(networks):
    x = inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(3, 3, name="stem")(x)
    x = layers.GlobalAveragePooling2D(name="mean")(x)
    expert = keras.Model(inputs, layers.Dense(2, name="out")(x), name="images")
    cascade = kc.build_cascade(
        networks[0],
        expert,
        taps={"map": "conv", "vector": "pool"},
        inject={
            "map": kc.Injection("stem", "film"),
            "vector": ["mean", kc.Injection("out", "concat")],
        },
        loss="mse",
    )
    found = rows(printed(cascade)[0])
    assert found["downstream"][:2] == [
        "images (Functional)",
        "map → stem (film) vector → mean (add) vector → out (concat)",
    ]
    # The features' sides of the merges are parts of the adapters.
    block = cascade.blocks["adapters"]
    assert found["adapters"][3] == f"{block.count_params():,}"
    assert any("injections/" in v.path for v in block.variables)


def test_each_upstream_has_a_row_with_its_own_taps(networks):
    cascade = kc.build_cascade(
        {"one": networks[0], "two": keras.models.clone_model(networks[0])},
        taps={"a": "one/conv", "b": "two/pool"},
        head=2,
        loss="mse",
    )
    found = rows(printed(cascade)[0])
    assert found["one"][:3] == [
        "encoder (Functional)",
        "a: conv",
        "a: 6 × 6 × 4",
    ]
    assert found["two"][:3] == ["encoder (Functional)", "b: pool", "b: 4"]
    assert list(found) == ["one", "two", "adapters", "fusion", "head", "total"]


def test_preprocessing_is_shown_twice(networks):
    """It is in the row of its network, and is a block of its own."""
    cascade = kc.build_cascade(
        networks[0], head=2, preprocess=layers.Rescaling(2.0, name="doubled")
    )
    found = rows(printed(cascade)[0])
    assert "doubled" in found["preprocessing"][0]
    assert found["upstream"][0].startswith("encoder (Functional) ")


def test_many_rates_of_a_block_are_shown_as_a_range():
    x = inputs = keras.Input((3,))
    for number in range(5):
        x = layers.Dense(3, name=f"layer{number}")(x)
    cascade = kc.build_cascade(
        keras.Model(inputs, x),
        head=2,
        trainable=True,
        learning_rates={"upstream": kc.LayerwiseDecay(1e-3, 0.5)},
        loss="mse",
    )
    (text,) = printed(cascade)
    assert rows(text)["upstream"][-1] == "0.001 to 6.25e-05"


def test_retention_is_in_the_caption(networks):
    retention = {"upstream/conv": kc.L2SP(0.1)}
    (text,) = printed(build(networks, retention=retention))
    assert (
        text.splitlines()[-1].strip() == "Retained: upstream/conv by L2SP(0.1)"
    )
