"""The version and the public names, which are imported at first use.

Tested by `tests/test_public_names.py`.
"""

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

__version__ = "0.1.0"

# Name to the module that has it, below the package; "" for a module itself.
# What a `.keras` file may contain is imported with the package, so that Keras
# finds it when it loads one.
_EAGER = {
    "EWC": "training.retention",
    "Cascade": "cascade.cascade",
    "FeatureCache": "cache.feature_cache",
    "Injection": "injection.arguments",
    "L2SP": "training.retention",
    "LayerwiseDecay": "training.rates",
    "LoRA": "training.lora",
    "LwF": "training.retention",
    "__version__": "_package.public",
    "adapters": "",
    "build_cascade": "build",
    "list_taps": "graph.tap_listing",
    "split": "cascade.splitting",
    "stages": "graph.stages",
    "truncate": "graph.truncation",
}
_LAZY = {
    "DriftMonitor": "training.drift",
    "ExportReport": "exporting.report",
    "ParityError": "exporting.report",
    "check_interface": "analysis",
    "export": "exporting.exporter",
    "find_learning_rates": "training.range_test",
    "from_torch": "networks.pytorch.conversion",
    "rank_taps": "ranking",
    "read_card": "exporting.card",
    "register_torch_op": "networks.pytorch.registry",
    "search": "searching",
    "stitchability": "ranking",
    "testing": "",
    "zoo": "",
}


def face(
    package: str, modules: Mapping[str, str] = {**_EAGER, **_LAZY}
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Returns `__getattr__`, `__dir__` and `__all__` of a package.

    Completion shows the public names and nothing else. Names that few
    sessions need are imported when they are first used, as importing all of
    them would take longer than the rest.

    Args:
        package: The name of the package.
        modules: Its public names and the modules that have them. Defaults to
            those of keras_cascade.
    """
    names = sorted(modules)

    def attribute(name: str) -> Any:
        if name not in modules:
            raise AttributeError(
                f"module '{package}' has no attribute '{name}'"
            )
        if not modules[name]:
            return import_module(f"{package}.{name}")
        return getattr(import_module(f"{package}.{modules[name]}"), name)

    return attribute, lambda: names, names


def import_eager() -> None:
    """Imports Keras, and all that a `.keras` file may contain."""
    from keras_cascade._package import backend

    backend.import_keras()
    for name, module in _EAGER.items():
        import_module(f"keras_cascade.{module or name}")


def is_console() -> bool:
    """Returns whether this is `keras-cascade` or `python -m keras_cascade`.

    It imports Keras, which takes seconds, when a subcommand runs: `--help`
    needs none.
    """
    program = sys.argv[0] if sys.argv else ""
    if program == "-m":  # Python's name for a module that it looks for
        return "keras_cascade" in sys.orig_argv
    return Path(program).stem == "keras-cascade"
