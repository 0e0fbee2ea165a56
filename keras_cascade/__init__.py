"""One Keras model, on any backend, of two or more pretrained networks."""

from typing import TYPE_CHECKING

from keras_cascade._package.public import face, import_eager, is_console

if TYPE_CHECKING:  # At run time the package's `__getattr__` has them.
    from keras_cascade import adapters as adapters
    from keras_cascade import testing as testing
    from keras_cascade import zoo as zoo
    from keras_cascade._package.public import __version__ as __version__
    from keras_cascade.analysis import check_interface as check_interface
    from keras_cascade.build import build_cascade as build_cascade
    from keras_cascade.cache.feature_cache import FeatureCache as FeatureCache
    from keras_cascade.cascade.cascade import Cascade as Cascade
    from keras_cascade.cascade.splitting import split as split
    from keras_cascade.exporting import ExportReport as ExportReport
    from keras_cascade.exporting import ParityError as ParityError
    from keras_cascade.exporting import export as export
    from keras_cascade.exporting import read_card as read_card
    from keras_cascade.graph.stages import stages as stages
    from keras_cascade.graph.tap_listing import list_taps as list_taps
    from keras_cascade.graph.truncation import truncate as truncate
    from keras_cascade.injection.arguments import Injection as Injection
    from keras_cascade.networks.pytorch import from_torch as from_torch
    from keras_cascade.networks.pytorch import (
        register_torch_op as register_torch_op,
    )
    from keras_cascade.ranking import rank_taps as rank_taps
    from keras_cascade.ranking import stitchability as stitchability
    from keras_cascade.searching import search as search
    from keras_cascade.training.drift import DriftMonitor as DriftMonitor
    from keras_cascade.training.lora import LoRA as LoRA
    from keras_cascade.training.range_test import (
        find_learning_rates as find_learning_rates,
    )
    from keras_cascade.training.rates import LayerwiseDecay as LayerwiseDecay
    from keras_cascade.training.retention import EWC as EWC
    from keras_cascade.training.retention import L2SP as L2SP
    from keras_cascade.training.retention import LwF as LwF

__getattr__, __dir__, __all__ = face(__name__)

if not is_console():
    import_eager()
