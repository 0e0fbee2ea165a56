"""Names the layers that fuse the features of several taps.

Tested by `tests/assembly/test_fusion.py`.
"""

import keras

# The names that the argument `fusion` takes.
FUSIONS = {
    "concat": keras.layers.Concatenate,
    "add": keras.layers.Add,
    "average": keras.layers.Average,
    "multiply": keras.layers.Multiply,
    "maximum": keras.layers.Maximum,
}
