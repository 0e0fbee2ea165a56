"""Networks that the tests of `analysis` share."""

from statistics import NormalDist

import keras
import numpy as np
from keras import layers


def encoder(last="linear"):
    """Returns a network (6,) -> map 4 × 4 × 5, sequence 16 × 5, vector 7."""
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(80, "relu", name="wide")(x)
    x = layers.Reshape((4, 4, 5), name="map")(x)
    x = layers.Reshape((16, 5), name="steps")(x)
    x = layers.Flatten(name="flat")(x)
    x = layers.Dense(7, last, name="vector")(x)
    return keras.Model(inputs, x, name="encoder")


def expert(width=10):
    x = inputs = keras.Input((width,), name="features")
    x = layers.Dense(8, name="low")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="act")(x)
    x = layers.Dense(3, name="out")(x)
    return keras.Model(inputs, x, name="expert")


def standardised(mean, variance, gamma=None, beta=None):
    """Returns a network whose BatchNormalization was trained on moments."""
    mean = np.asarray(mean, "float32")
    norm = layers.BatchNormalization(name="norm")
    network = keras.Sequential(
        [keras.Input(mean.shape), norm, layers.Dense(2, name="out")],
        name="expert",
    )
    gamma = np.ones_like(mean) if gamma is None else np.asarray(gamma)
    beta = np.zeros_like(mean) if beta is None else np.asarray(beta)
    norm.set_weights([gamma, beta, mean, np.asarray(variance, "float32")])
    return network


def passing(width):
    """Returns a network whose output is its input."""
    inputs = keras.Input((width,), name="x")
    return keras.Model(inputs, layers.Identity(name="same")(inputs))


def severities(report):
    return [finding.severity for finding in report.findings]


def exactly(mean, deviation, count=20_000):
    """Returns quantiles of normal distributions with these moments, as rows."""
    shares = (np.arange(count) + 0.5) / count
    column = np.array([NormalDist().inv_cdf(share) for share in shares])
    column = (column - column.mean()) / column.std()
    return column[:, None] * deviation + mean
