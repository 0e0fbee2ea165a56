"""What turns a tap into features that fit where they go."""

from keras_cascade.adapters.adapter import Adapter as Adapter
from keras_cascade.adapters.dense import DenseAdapter as DenseAdapter
from keras_cascade.adapters.pca import PCAAdapter as PCAAdapter
