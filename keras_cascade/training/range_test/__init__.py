"""Tests a range of learning rates, and suggests one per block."""

from keras_cascade.training.range_test.finder import (
    find_learning_rates as find_learning_rates,
)
