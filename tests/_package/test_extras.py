"""The command that installs what is missing names extras that there are."""

import re
import tomllib

import pytest

from keras_cascade._package import extras
from tests.test_imports import LAZY, ROOT

# No backend takes part in it.
pytestmark = pytest.mark.once

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
# Where the package has another name than the module.
PACKAGES = {"sklearn": "scikit-learn", "ai_edge_litert": "ai-edge-litert"}


@pytest.mark.parametrize(
    ("modules", "line"),
    [
        (["torch"], 'pip install "keras_cascade[torch]"'),
        (["onnx", "tf2onnx"], 'pip install "keras_cascade[onnx]"'),
        (
            ["tensorflow", "onnx"],
            'pip install "keras_cascade[onnx,tensorflow]"',
        ),
        (["sklearn.datasets"], 'pip install "keras_cascade[analysis]"'),
        (["PIL"], "pip install pillow"),
        (["no_such"], "pip install no_such"),
        (["no_such", "torch"], 'pip install "keras_cascade[torch]" no_such'),
    ],
)
def test_one_command_installs_all_of_them(modules, line):
    assert extras.pip_line(*modules) == line


@pytest.mark.parametrize("module", extras._EXTRA_OF)
def test_the_extra_has_the_package_of_the_module(module):
    extra = PROJECT["optional-dependencies"][extras._EXTRA_OF[module]]
    packages = [re.match(r"[\w-]+", line)[0] for line in extra]
    default = module.replace("_", "-")
    assert PACKAGES.get(module, default) in packages


def test_every_module_that_is_imported_late_is_known():
    known = {*extras._EXTRA_OF, *extras._PACKAGE_OF}
    # They come with others, or are the names of their packages.
    assert LAZY - known == {
        "IPython",
        "flatbuffers",
        "grain",
        "pandas",
    }
