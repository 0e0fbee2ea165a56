"""One Keras model of two or more pretrained networks.

`build_cascade` takes named intermediate outputs of one network, puts adapters
after them, merges them into the input of the next, and sets what trains and
how fast. The result is a Keras 3 model on TensorFlow, JAX or PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from keras_cascade import adapters
from keras_cascade._version import __version__
from keras_cascade.build import build_cascade
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.cascade.splitting import split
from keras_cascade.graph.tap_listing import list_taps
from keras_cascade.graph.truncation import truncate
from keras_cascade.injection.arguments import Injection
from keras_cascade.training.lora import LoRA
from keras_cascade.training.rates.layerwise_decay import LayerwiseDecay
from keras_cascade.training.retention import EWC, L2SP, LwF

if TYPE_CHECKING:
    from keras_cascade import testing, zoo
    from keras_cascade.analysis import check_interface
    from keras_cascade.exporting import (
        ExportReport,
        ParityError,
        export,
        read_card,
    )
    from keras_cascade.training.drift.monitor import DriftMonitor
    from keras_cascade.training.range_test.finder import find_learning_rates

__all__ = [
    "EWC",
    "L2SP",
    "Cascade",
    "DriftMonitor",
    "ExportReport",
    "FeatureCache",
    "Injection",
    "LayerwiseDecay",
    "LoRA",
    "LwF",
    "ParityError",
    "__version__",
    "adapters",
    "build_cascade",
    "check_interface",
    "export",
    "find_learning_rates",
    "list_taps",
    "read_card",
    "split",
    "testing",
    "truncate",
    "zoo",
]

# Imported at first use, as few sessions need them. What a `.keras` file may
# contain is imported above, so that Keras finds it.
_LAZY = {
    "DriftMonitor": "training.drift.monitor",
    "ExportReport": "exporting",
    "ParityError": "exporting",
    "check_interface": "analysis",
    "export": "exporting",
    "find_learning_rates": "training.range_test.finder",
    "read_card": "exporting",
}


def __getattr__(name: str) -> Any:
    """Imports the public names that only some sessions need."""
    if name in ("testing", "zoo"):
        return import_module(f"{__name__}.{name}")
    if name in _LAZY:
        return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    """Returns the public names, for completion."""
    return __all__
