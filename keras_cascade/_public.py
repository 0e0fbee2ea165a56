"""The version and the public names, of which some are imported at first use.

Tested by `tests/test_public_names.py`.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Name to the module that has it, below the package.
_LAZY = {
    "DriftMonitor": "training.drift",
    "ExportReport": "exporting",
    "ParityError": "exporting",
    "check_interface": "analysis",
    "export": "exporting",
    "find_learning_rates": "training.range_test",
    "read_card": "exporting",
    "testing": "",
    "zoo": "",
}
# What a `.keras` file may contain is imported with the package, so that Keras
# finds it when it loads one.
_EAGER = [
    "EWC",
    "Cascade",
    "FeatureCache",
    "Injection",
    "L2SP",
    "LayerwiseDecay",
    "LoRA",
    "LwF",
    "__version__",
    "adapters",
    "build_cascade",
    "list_taps",
    "split",
    "truncate",
]


def face(
    package: str,
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of the package.

    Completion shows the public names and nothing else. Names that few
    sessions need are imported when they are first used, as importing all of
    them would take longer than the rest.

    Args:
        package: The name of the package.
    """
    names = sorted([*_EAGER, *_LAZY])

    def attribute(name: str) -> Any:
        if name not in _LAZY:
            raise AttributeError(
                f"module '{package}' has no attribute '{name}'"
            )
        if not _LAZY[name]:
            return import_module(f"{package}.{name}")
        return getattr(import_module(f"{package}.{_LAZY[name]}"), name)

    return attribute, lambda: names, names
