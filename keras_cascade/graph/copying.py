"""Copies a network, or the part of it that some tensors need, as a block."""

from collections.abc import Mapping

import keras

from keras_cascade.graph.block import Block
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.names import name_variables
from keras_cascade.graph.replay import Replay


def copy_network(
    network: keras.Model,
    name: str,
    outputs: Mapping[str, Reference] | None = None,
    share: bool = False,
) -> Block:
    """Copies a network, or the part of it that some tensors need.

    All outputs come from one forward pass. Layers after the last of them are
    not in the copy, at any level of nesting, and neither are inputs that none
    of them needs.

    Args:
        network: A built Functional or Sequential model. It stays as it is.
        name: The name of the copy. The path of each weight begins with it.
        outputs: The tensors that the copy gives, by their new names. `None`
            keeps the network's own outputs, and all inputs. Defaults to
            `None`.
        share: Whether to use the network's own layers instead of copies, with
            the names that they have. Defaults to `False`.

    Returns:
        The copy, with the network's weights and flags.
    """
    graph = read_graph(network, keep_names=share)
    return copy_graph(graph, name, outputs, share)


def copy_graph(
    graph: Graph,
    name: str,
    outputs: Mapping[str, Reference] | None = None,
    share: bool = False,
    pruned: bool = False,
    replay: Replay | None = None,
) -> Block:
    """Copies a graph that was read, or changed, as `copy_network` does.

    Args:
        graph: The network's graph.
        name: As in `copy_network`.
        outputs: As in `copy_network`. Defaults to `None`.
        share: As in `copy_network`. Defaults to `False`.
        pruned: Whether inputs that its own outputs do not need, and the calls
            that depend on them, are left out. Defaults to `False`.
        replay: The `Replay` that built other networks, whose layers the copy
            shares as the originals do. Defaults to `None`: a new one.
    """
    replay = Replay(share=share) if replay is None else replay
    # Elsewhere the same nested network may have been built into otherwise.
    replay.blocks.clear()
    replay.stepwise.clear()
    whole = outputs is None and not pruned
    block, _ = replay.build(graph, name, outputs, whole)
    if not replay.share:
        replay.copy_states()
        name_variables(block, name)
    return block
