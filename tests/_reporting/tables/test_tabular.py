"""What is shown as tables: in notebooks, terminals and files."""

import builtins
import io
import sys
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from rich.cells import cell_len

import keras_cascade as kc
from keras_cascade.display.inspection import inspection_tables
from keras_cascade.exporting.checking.parity import OutputParity
from tests.notebook_shell import run

X = np.random.default_rng(0).normal(size=(24, 8, 8, 3)).astype("float32")
Y = np.random.default_rng(1).integers(0, 2, 24)


def networks():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="first_convolution_of_the_encoder")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    encoder = keras.Model(inputs, layers.Dense(5, name="dense")(x), name="net")
    expert = [keras.Input((7,)), layers.Dense(2, "softmax", name="answer")]
    return encoder, keras.Sequential(expert, name="expert")


@pytest.fixture(scope="module")
def shown():
    """Everything that is shown as tables, by its name."""
    arguments = {
        "taps": {"map": "first_convolution_of_the_encoder", "vector": "-1"},
        "adapters": {"map": 4, "vector": 3},
    }
    cascade = kc.build_cascade(
        *networks(),
        **arguments,
        trainable={"upstream": True},
        learning_rates={"upstream": 1e-5},
        optimizer="sgd",
        loss="sparse_categorical_crossentropy",
    )
    return {
        "cascade": cascade,
        "taps": kc.list_taps(networks()[0]),
        "interface": kc.check_interface(*networks(), **arguments, data=X),
        "rates": kc.find_learning_rates(
            cascade, (X, Y), steps=20, verbose=False
        ),
        "export": kc.ExportReport(
            path=Path("cascade.tflite"),
            format="tflite",
            backend="tensorflow",
            rehosted=True,
            quantize="mixed",
            size_bytes=123_456,
            inputs={"image": (None, 8, 8, 3)},
            outputs={"answer": (None, 2)},
            operators={"CONV_2D": 4, "FULLY_CONNECTED": 12, "SOFTMAX": 1}
            | {f"OPERATOR_{i}": i for i in range(9)},
            layers=(
                {
                    "operator": "CONV_2D",
                    "layer": "upstream/first_convolution_of_the_encoder/conv",
                    "error": 0.5,
                    "stored": "int8",
                },
            ),
            tolerance=0.1,
            parity={"answer": OutputParity(1.0, 0.0321, 0.01, 0.99)},
        ),
        "inspection": inspection_tables(cascade),
    }


OBJECTS = ("taps", "interface", "rates", "export", "inspection")


class Terminal(io.StringIO):
    """A terminal."""

    def isatty(self):
        return True


def printed(monkeypatch, stream, call, columns="80"):
    monkeypatch.setenv("COLUMNS", columns)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", stream)
        call()
    return stream.getvalue()


def widest(text):
    return max(map(cell_len, text.splitlines()))


@pytest.mark.parametrize("columns", [80, 100, 120])
@pytest.mark.parametrize("name", [*OBJECTS, "summary"])
def test_in_a_terminal_the_text_fits(name, columns, shown, monkeypatch):
    def call():
        if name == "summary":
            shown["cascade"].summary()
        else:
            sys.stdout.write(str(shown[name]))

    text = printed(monkeypatch, Terminal(), call, str(columns))
    assert 20 < widest(text) <= columns
    assert "\x1b" not in text


@pytest.mark.parametrize("name", OBJECTS)
def test_in_a_pipe_no_cell_is_folded(name, shown, monkeypatch):
    stream = io.StringIO()
    text = printed(monkeypatch, stream, lambda: stream.write(str(shown[name])))
    lines = text.splitlines()
    cells = [
        line
        for part in shown[name]._parts()
        if hasattr(part, "cells")
        for row in part.cells
        for cell in row
        for line in cell.split("\n")
    ]
    assert cells
    for cell in cells:
        assert any(cell in line for line in lines)


class Tags(HTMLParser):
    """Counts tables and unclosed tags."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.depth, self.text = 0, 0, ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tables += tag == "table"
        self.depth += tag not in ("br", "img", "wbr")

    def handle_endtag(self, tag):
        self.depth -= 1

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", [*OBJECTS, "cascade"])
def test_a_notebook_shows_html(name, shown):
    _, outputs = run("display(it)", it=shown[name])
    assert [set(x) for x in outputs] == [{"text/plain", "text/html"}]
    read = Tags(outputs[0]["text/html"])
    assert read.tables >= 1 and read.depth == 0
    assert "┃" not in read.text
    if name != "cascade":
        assert widest(outputs[0]["text/plain"]) <= 100


@pytest.mark.parametrize("name", OBJECTS)
def test_a_notebook_prints_text_that_fits_its_cell(name, shown):
    out, outputs = run("print(it)", it=shown[name])
    assert outputs == [] and widest(out) <= 100


def test_a_summary_in_a_notebook_is_html(shown):
    _, outputs = run("it.summary(line_length=70)", it=shown["cascade"])
    (data,) = outputs
    assert Tags(data["text/html"]).tables == 1
    assert "max-width: 70ch" in data["text/html"]
    assert widest(data["text/plain"]) <= 70


def test_a_summary_that_is_printed_by_a_function_is_text(shown):
    out, outputs = run("it.summary(print_fn=print)", it=shown["cascade"])
    assert outputs == [] and "Cascade 'cascade'" in out


@pytest.mark.parametrize("name", ["interface", "rates", "export"])
def test_the_repr_of_a_report_is_a_line_that_says_something(name, shown):
    line = repr(shown[name])
    assert "\n" not in line and len(line) < 200
    known = {"interface": "map, vector: builds", "rates": "upstream "}
    known["export"] = "tflite, mixed, 123,456 bytes, 3.2e-02 σ from the"
    assert known[name] in line
    assert not hasattr(builtins, "get_ipython")
