"""Measures how far blocks moved from their pretrained state."""

from keras_cascade.training.drift.monitor import DriftMonitor as DriftMonitor
