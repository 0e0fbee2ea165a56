"""Checks to run on adapters and cascades of your own."""

from keras_cascade.testing.adapters import check_adapter as check_adapter
from keras_cascade.testing.cascades import check_cascade as check_cascade
from keras_cascade.testing.checks import CheckError as CheckError
