"""Features are keyed by all of the user's code that computes them."""

import ctypes
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_cascade.cache.contents.operations import (
    describe_code,
    note_written,
    states_of,
)
from keras_cascade.cache.fingerprint import unknown_contents
from keras_cascade.graph.flattening import as_program
from tests.cache.contents.conftest import key_of

LAYER = "class Own(keras.layers.Layer):\n def call(self, x): return {}\n"
LAMBDA = "def Own(): return keras.layers.Lambda({}, output_shape=lambda s: s)\n"
# Each has `2.0` once, and a layer `Own()` that depends on it.
CODE = {
    "own class": LAYER.format("x * 2.0"),
    "base class": (
        "class Base(keras.layers.Layer):\n def call(self, x): return x * 2.0\n"
        "class Own(Base): pass\n"
    ),
    "mixin": (
        "class Mixin:\n def scaled(self, x): return x * 2.0\n"
        "class Own(Mixin, keras.layers.Layer):\n"
        " def call(self, x): return self.scaled(x)\n"
    ),
    "class attribute": (
        "class Own(keras.layers.Layer):\n factor = 2.0\n"
        " def call(self, x): return x * self.factor\n"
    ),
    "property": (
        "class Own(keras.layers.Layer):\n factor = property(lambda self: 2.0)\n"
        " def call(self, x): return x * self.factor\n"
    ),
    "static method": (
        "class Own(keras.layers.Layer):\n @staticmethod\n"
        " def scaled(x): return x * 2.0\n"
        " def call(self, x): return self.scaled(x)\n"
    ),
    "class method": (
        "class Own(keras.layers.Layer):\n @classmethod\n"
        " def scaled(cls, x): return x * 2.0\n"
        " def call(self, x): return self.scaled(x)\n"
    ),
    "constructor": (
        "class Own(keras.layers.Layer):\n def __init__(self):\n"
        "  super().__init__()\n  self._factor = 2.0\n"
        " def call(self, x): return x * self._factor\n"
    ),
    "patched class": (
        LAYER.format("x") + "Own.call = lambda self, x: x * 2.0\n"
    ),
    "constant": "FACTOR = 2.0\n" + LAYER.format("x * FACTOR"),
    "constant in a dict": (
        "SET = {'a': [1, {'b': 2.0}]}\n" + LAYER.format("x * SET['a'][1]['b']")
    ),
    "constant array": (
        "import numpy as np\nTABLE = np.array([1.0, 2.0, 3.0], 'float32')\n"
        + LAYER.format("x * keras.ops.convert_to_tensor(TABLE)")
    ),
    "constant tensor": (
        "TABLE = keras.ops.convert_to_tensor([1.0, 2.0, 3.0])\n"
        + LAYER.format("x * TABLE")
    ),
    "constant by text": (
        "FACTOR = 2.0\n" + LAYER.format("x * globals()['FACTOR']")
    ),
    "object": (
        "class Settings:\n def __init__(self, factor): self.factor = factor\n"
        "SETTINGS = Settings(2.0)\n" + LAYER.format("x * SETTINGS.factor")
    ),
    "object with slots": (
        "class Settings:\n __slots__ = ('factor',)\n"
        "SETTINGS = Settings()\nSETTINGS.factor = 2.0\n"
        + LAYER.format("x * SETTINGS.factor")
    ),
    "dataclass": (
        "import dataclasses\n@dataclasses.dataclass(frozen=True)\n"
        "class Settings:\n factor: float = 2.0\n"
        "SETTINGS = Settings()\n" + LAYER.format("x * SETTINGS.factor")
    ),
    "enumeration": (
        "import enum\nclass Factor(enum.Enum):\n DOUBLE = 2.0\n"
        + LAYER.format("x * Factor.DOUBLE.value")
    ),
    "helper": ("def helper(x): return x * 2.0\n" + LAYER.format("helper(x)")),
    "helper of a helper": (
        "def inner(x): return x * 2.0\ndef helper(x): return inner(x)\n"
        + LAYER.format("helper(x)")
    ),
    "helpers that call each other": (
        "def one(x, n): return other(x, n - 1) if n else x\n"
        "def other(x, n): return one(x, n - 1) * 2.0\n"
        + LAYER.format("one(x, 2)")
    ),
    "helper in a list": (
        "HELPERS = [lambda x: x * 2.0]\n" + LAYER.format("HELPERS[0](x)")
    ),
    "default": (
        "def helper(x, by=2.0): return x * by\n" + LAYER.format("helper(x)")
    ),
    "default by name": (
        "def helper(x, *, by=2.0): return x * by\n" + LAYER.format("helper(x)")
    ),
    "closure": (
        "def make(by):\n def helper(x): return x * by\n return helper\n"
        "helper = make(2.0)\n" + LAYER.format("helper(x)")
    ),
    "partial": (
        "import functools, operator\n"
        "helper = functools.partial(operator.mul, 2.0)\n"
        + LAYER.format("helper(x)")
    ),
    "bound method": (
        "class Settings:\n factor = 1.0\n"
        " def scaled(self, x): return x * self.factor\n"
        "settings = Settings()\nsettings.factor = 2.0\n"
        "helper = settings.scaled\n" + LAYER.format("helper(x)")
    ),
    "callable object": (
        "class Scaling:\n def __call__(self, x): return x * 2.0\n"
        "helper = Scaling()\n" + LAYER.format("helper(x)")
    ),
    "decorator": (
        "import functools\ndef twice(f):\n @functools.wraps(f)\n"
        " def wrapped(x): return f(x) * 2.0\n return wrapped\n"
        "@twice\ndef helper(x): return x\n" + LAYER.format("helper(x)")
    ),
    "decorated": (
        "import functools\n@functools.lru_cache\n"
        "def factor(): return 2.0\n" + LAYER.format("x * factor()")
    ),
    "single dispatch": (
        "import functools\n@functools.singledispatch\n"
        "def factor(x): return 1.0\n@factor.register\n"
        "def _(x: str): return 2.0\n" + LAYER.format("x * factor('a')")
    ),
    "attribute of a function": (
        "def helper(x): return x * helper.factor\nhelper.factor = 2.0\n"
        + LAYER.format("helper(x)")
    ),
    "nested function": (
        "def helper(x):\n def inner(x): return x * 2.0\n return inner(x)\n"
        + LAYER.format("helper(x)")
    ),
    "layer inside": (
        "class Inner(keras.layers.Layer):\n def call(self, x): return x * 2.0\n"
        "class Own(keras.layers.Layer):\n def __init__(self):\n"
        "  super().__init__()\n  self.inner = Inner()\n"
        " def call(self, x): return self.inner(x)\n"
    ),
    "layers in a list": (
        "class Inner(keras.layers.Layer):\n def call(self, x): return x * 2.0\n"
        "class Own(keras.layers.Layer):\n def __init__(self):\n"
        "  super().__init__()\n  self.inner = [{'a': Inner()}]\n"
        " def call(self, x): return self.inner[0]['a'](x)\n"
    ),
    "argument of a layer inside": (
        "class Own(keras.layers.Layer):\n def __init__(self):\n"
        "  super().__init__()\n  self.inner = keras.layers.Rescaling(2.0)\n"
        " def call(self, x): return self.inner(x)\n"
    ),
    "model": (
        "class Own(keras.Model):\n def __init__(self):\n"
        "  super().__init__()\n  self.inner = keras.layers.Rescaling(2.0)\n"
        " def call(self, x): return self.inner(x)\n"
    ),
    "wrapped layer": (
        LAYER.replace("Own", "Inner").format("x * 2.0")
        + " def compute_output_shape(self, shape): return shape\n"
        "def Own(): return keras.layers.TimeDistributed(Inner())\n"
    ),
    "cell": (
        "class Cell(keras.layers.Layer):\n"
        " state_size = 3\n output_size = 3\n"
        " def call(self, x, states): return x * 2.0, states\n"
        "def Own(): return keras.layers.RNN(Cell(), return_sequences=True)\n"
    ),
    "activation": (
        "def act(x): return x * 2.0\n"
        "def Own(): return keras.layers.Activation(act)\n"
    ),
    "activation of a lambda": (
        "def Own(): return keras.layers.Activation(lambda x: x * 2.0)\n"
    ),
    "function of a Lambda": LAMBDA.format("lambda x: x * 2.0"),
    "constant of a Lambda": "FACTOR = 2.0\n"
    + LAMBDA.format("lambda x: x * FACTOR"),
    "helper of a Lambda": "def helper(x): return x * 2.0\n"
    + LAMBDA.format("lambda x: helper(x)"),
    "instance's call": (
        "import types\ndef call(self, x): return x * 2.0\n"
        "def Own():\n layer = keras.layers.ReLU()\n"
        " layer.call = types.MethodType(call, layer)\n return layer\n"
    ),
}


@pytest.mark.filterwarnings("ignore:The object being serialized")
@pytest.mark.parametrize("text", CODE.values(), ids=CODE)
def test_an_edit_anywhere_in_the_code_gives_another_key(module, text):
    assert text.count("2.0") == 1

    def key(text):
        keras.utils.set_random_seed(0)
        return key_of(module(text).Own())

    assert key(text) == key(text)
    assert key(text.replace("2.0", "5.0")) != key(text)


@pytest.mark.parametrize(
    "use",
    [
        "import helpers\n" + LAYER.format("x * helpers.FACTOR"),
        "import helpers as h\n" + LAYER.format("h.helper(x)"),
        "from helpers import helper\n" + LAYER.format("helper(x)"),
        "from helpers import FACTOR as by\n" + LAYER.format("x * by"),
        "import helpers\n" + LAYER.format("x * getattr(helpers, 'FACTOR')"),
        LAYER.format("__import__('helpers').helper(x)"),
        "class Own(keras.layers.Layer):\n def call(self, x):\n"
        "  from helpers import helper\n  return helper(x)\n",
        "class Own(keras.layers.Layer):\n def call(self, x):\n"
        "  import helpers\n  return helpers.helper(x)\n",
        "import helpers\nclass Own(helpers.Base): pass\n",
    ],
)
def test_an_edit_in_another_module_gives_another_key(module, use):
    def key(factor):
        module(
            f"FACTOR = {factor}\ndef helper(x): return x * FACTOR\n"
            + LAYER.replace("Own", "Base").format("helper(x)"),
            "helpers",
        )
        return key_of(module(use).Own())

    assert key(2.0) == key(2.0)
    assert key(2.0) != key(5.0)


@pytest.mark.parametrize("value", [3, [1, 2], {"a": 3}, np.ones(3), len])
def test_attributes_that_are_set_on_a_layer_count(module, value):
    layer = module(LAYER.format("x")).Own()
    before = key_of(layer)
    layer.factor = value
    assert key_of(layer) != before
    del layer.factor
    assert key_of(layer) == before


def test_a_text_in_its_code_that_changes_nothing_keeps_the_key(module):
    text = "OTHER = 1\n" + LAYER.format("x * 2.0 if 'a' in {'a', 'b'} else x")
    others = (
        f"# A comment.\n\n\n{text}",
        text.replace("OTHER = 1", "OTHER = 2"),
        text.replace("return", "\n  return"),
    )
    keys = {key_of(module(each).Own()) for each in (text, *others)}
    assert len(keys) == 1


def test_what_keras_notes_on_a_network_keeps_the_key(module):
    model = module(CODE["model"]).Own()
    before = key_of(model)
    model.compile("sgd", "mse")
    x = np.ones((4, 4, 3), "float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nothing trains
        model.fit(x, x, verbose=0)
    model.predict(x, verbose=0)
    assert key_of(model) == before


COUNTING = {
    "list": (
        "calls = []\nclass Own(keras.layers.Layer):\n"
        " def call(self, x):\n  calls.append(1)\n  return x * 2.0\n"
    ),
    "global": (
        "calls = 0\nclass Own(keras.layers.Layer):\n"
        " def call(self, x):\n  global calls\n  calls += 1\n  return x * 2.0\n"
    ),
    "attribute": (
        "class Own(keras.layers.Layer):\n calls = 0\n"
        " def call(self, x):\n  self.calls += 1\n  return x * 2.0\n"
    ),
    "closure": (
        "def count():\n calls = [0]\n def call(x):\n"
        "  calls[0] += 1\n  return x * 2.0\n return call\ncall = count()\n"
        "def Own(): return keras.layers.Lambda(call)\n"
    ),
    "tensor": (
        "class Own(keras.layers.Layer):\n"
        " def call(self, x):\n  self.seen = x * 2.0\n  return x * 2.0\n"
    ),
}


@pytest.mark.parametrize("text", COUNTING.values(), ids=COUNTING)
def test_values_that_running_changes_are_left_out(module, text):
    layer = module(text).Own()
    key_of(layer)
    before = states_of([layer])
    layer(np.ones((1, 4, 3), "float32"))
    assert note_written([layer], before)
    first = key_of(layer)
    layer(np.zeros((2, 4, 3), "float32"))
    assert key_of(layer) == first
    other = module(text.replace("* 2.0\n", "* 5.0\n")).Own()
    before = states_of([other])
    other(np.ones((1, 4, 3), "float32"))
    note_written([other], before)
    assert key_of(other) != first


def unknown(layer, key=None):
    inputs = keras.Input((4, 3), name="x")
    program = as_program(keras.Model(inputs, layer(inputs)))
    return unknown_contents(program, key)


def test_code_that_cannot_be_read_serves_its_process_or_needs_a_key(module):
    own = module("helper = None\n" + LAYER.format("x if helper else x"))
    own.helper = ctypes.pythonapi.Py_GetVersion
    layer = own.Own(name="own")
    [reason] = unknown(layer).values()
    assert "'own_code:helper' has a content that Python cannot see" in reason
    assert "FeatureCache(key=...) says that it stays as it is" in reason
    assert key_of(layer) == key_of(layer)
    assert unknown(layer, "v1") == {}
    assert key_of(layer, key="v1") != key_of(layer, key="v2")
    layer.made = (x for x in "abc")
    # A key is no word about an object, which another layer may have too.
    assert "'Own.made' has a content" in unknown(layer, "v1")["own"]


def test_locks_and_loggers_are_no_content(module):
    text = (
        "import logging, threading\nLOG = logging.getLogger('own')\n"
        "LOCK = threading.Lock()\n" + LAYER.format("x if LOG and LOCK else x")
    )
    layer = module(text).Own()
    assert unknown(layer) == {}
    assert key_of(layer) == key_of(module(text).Own())


def test_layers_of_keras_alone_have_no_code_to_describe():
    for layer in (
        layers.Dense(3, activation="relu"),
        layers.TimeDistributed(layers.Dense(3)),
        layers.Bidirectional(layers.LSTM(2)),
        layers.MultiHeadAttention(2, 3),
        layers.BatchNormalization(),
    ):
        assert describe_code(layer)[0] is None
