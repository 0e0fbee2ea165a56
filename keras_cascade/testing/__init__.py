"""Checks to run on adapters and cascades of your own."""

from keras_cascade.testing.adapters import check_adapter
from keras_cascade.testing.cascades import check_cascade
from keras_cascade.testing.checks import CheckError

__all__ = ["CheckError", "check_adapter", "check_cascade"]


def __dir__() -> list[str]:
    """Returns the public names, for completion."""
    return __all__
