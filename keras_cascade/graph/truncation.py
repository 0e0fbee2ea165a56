"""Ends a network at an inner layer."""

import keras

from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.names import name_variables
from keras_cascade.graph.replay import Replay
from keras_cascade.graph.taps import resolve_taps
from keras_cascade.networks.loading import as_network, load_network


def truncate(network: keras.Model | str, path: str) -> keras.Model:
    """Ends a network at an inner layer.

    The layers after it are not in the result, nor their weights. Use it to
    take the head off a classifier, or if another library wants a model that
    ends where you tap.

    Args:
        network: A built Functional or Sequential model, or the path of a
            `.keras` file. It stays as it is.
        path: The layer whose output becomes the network's, as a tap's path.

    Returns:
        A stock Functional model with copies of the weights, of the same name.

    Raises:
        ValueError: If the path selects nothing, or more than one tensor.

    Example:
    >>> features = truncate(keras.applications.VGG16(weights=None), "fc2")
    >>> features.output_shape
    (None, 4096)
    """
    source = as_network(load_network(network, "network"), "network")
    graph = read_graph(source)
    (tap,) = resolve_taps(graph, {"output": path}, "network")
    replay = Replay(network_class=keras.Model)
    part, _ = replay.build(graph, source.name, {"output": tap.reference})
    replay.copy_states()
    (output,) = part.outputs
    result = keras.Model(part.input, output, name=source.name)
    name_variables(result, source.name)
    return result
