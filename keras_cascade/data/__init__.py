"""The only place that looks at the type of the user's data."""

from keras_cascade.data.arrays import to_numpy as to_numpy
from keras_cascade.data.reading import batches as batches
from keras_cascade.data.reading import is_reiterable as is_reiterable
from keras_cascade.data.reading import labelled_batches as labelled_batches
from keras_cascade.data.reading import length as length
from keras_cascade.data.reading import training_batches as training_batches
