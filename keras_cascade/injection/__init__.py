"""Merges adapted features into inner layers of the downstream."""

from keras_cascade.injection.arguments import Injection as Injection
