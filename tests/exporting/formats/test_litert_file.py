"""LiteRT's files as objects, read back by their own classes."""

import importlib.util

import pytest

from keras_cascade.exporting.formats import litert_file as flatbuffer

pytestmark = pytest.mark.skipif(
    not any(map(importlib.util.find_spec, ("ai_edge_litert", "tensorflow"))),
    reason="needs ai-edge-litert or tensorflow, which have LiteRT's schema",
)


@pytest.fixture
def model():
    """A file of three operators, one of which is a user's own."""
    classes = flatbuffer.schema()
    model, graph = classes.ModelT(), classes.SubGraphT()
    model.version, model.buffers = 3, [classes.BufferT()]
    builtin = classes.BuiltinOperator
    model.operatorCodes = [
        code(builtin.ADD),
        code(builtin.CUSTOM, "FlexErf"),
        # A number that is too large for the older field.
        code(builtin.GELU, deprecated=127),
    ]
    graph.operators = [operator(x) for x in (0, 1, 0, 2)]
    graph.tensors, graph.inputs, graph.outputs = [], [], []
    model.subgraphs = [graph]
    return model


def code(number, custom=None, deprecated=None):
    found = flatbuffer.schema().OperatorCodeT()
    found.builtinCode = number
    found.deprecatedBuiltinCode = number if deprecated is None else deprecated
    found.customCode, found.version = custom, 1
    return found


def operator(index):
    found = flatbuffer.schema().OperatorT()
    found.opcodeIndex, found.inputs, found.outputs = index, [], []
    return found


def test_a_written_file_is_a_litert_file(model, tmp_path):
    path = tmp_path / "x.tflite"
    flatbuffer.write_model(model, path)
    assert path.read_bytes()[4:8] == b"TFL3"
    assert flatbuffer.read_model(path).version == 3


def test_operators_are_counted_by_name(model, tmp_path):
    path = tmp_path / "x.tflite"
    flatbuffer.write_model(model, path)
    assert flatbuffer.operators(path) == {"ADD": 2, "FlexErf": 1, "GELU": 1}


def test_operators_of_old_files_have_names(model, tmp_path):
    path = tmp_path / "x.tflite"
    for x in model.operatorCodes[:1]:
        x.builtinCode = 0
        x.deprecatedBuiltinCode = flatbuffer.schema().BuiltinOperator.SOFTMAX
    flatbuffer.write_model(model, path)
    assert flatbuffer.operators(path)["SOFTMAX"] == 2


def test_texts_are_read_as_they_were_written(model, tmp_path):
    path = tmp_path / "x.tflite"
    texts = {"labels/digit": "null\neins\nzwölf", "card": '{"α": 1}'}
    flatbuffer.set_metadata(model, texts)
    flatbuffer.write_model(model, path)
    for name, text in texts.items():
        assert flatbuffer.metadata(path, name) == text.encode()


def test_texts_replace_only_earlier_ones_of_their_name(model, tmp_path):
    path = tmp_path / "x.tflite"
    flatbuffer.set_metadata(model, {"one": "old", "two": "old"})
    flatbuffer.write_model(model, path)
    again = flatbuffer.read_model(path)
    flatbuffer.set_metadata(again, {"two": "new"})
    flatbuffer.write_model(again, path)
    assert flatbuffer.metadata(path, "one") == b"old"
    assert flatbuffer.metadata(path, "two") == b"new"


def test_a_file_without_metadata_has_none(model, tmp_path):
    path = tmp_path / "x.tflite"
    flatbuffer.write_model(model, path)
    assert flatbuffer.metadata(path, "card") is None
