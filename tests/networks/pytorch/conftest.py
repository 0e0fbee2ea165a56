"""Every test here needs PyTorch beside Keras's backend."""

from importlib.util import find_spec

import pytest


def pytest_collection_modifyitems(items):
    if find_spec("torch"):
        return
    skip = pytest.mark.skip(reason="modules are PyTorch's, not installed here")
    for item in items:
        if "pytorch" in item.path.parts:
            item.add_marker(skip)
