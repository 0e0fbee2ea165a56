"""What turns a tap into features that fit where they go."""

from keras_cascade.adapters.adapter import Adapter as Adapter
from keras_cascade.adapters.dense import DenseAdapter as DenseAdapter
from keras_cascade.adapters.label_map import LabelMapAdapter as LabelMapAdapter
from keras_cascade.adapters.logits import LogitsAdapter as LogitsAdapter
from keras_cascade.adapters.pca import PCAAdapter as PCAAdapter
from keras_cascade.adapters.spatial import SpatialAdapter as SpatialAdapter
from keras_cascade.adapters.tokens import TokenAdapter as TokenAdapter
