"""Finds the layer at a path of a cascade, and the block that something is in.

Tested by `tests/cascade/test_layer_paths.py`.
"""

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.block import leaf_layers
from keras_cascade.training.layer_lookup import LayerLookup


def find_layer(cascade: CascadeView, path: str) -> keras.Operation:
    """Returns the layer at a path, such as `"upstream/conv3"`.

    Raises:
        ValueError: The path matches nothing, or several layers.
    """
    lookup = LayerLookup(cascade)
    found = {id(x): x for x in lookup.operations(path)}
    if not found:
        covered = lookup.covered(path, "get_layer")
        found = {id(x): x for x in map(lookup.layers.__getitem__, covered)}
    if len(found) > 1:
        names = [x.name for x in found.values()]
        raise ValueError(
            f"get_layer names '{path}', which matches {len(found)} layers: "
            f"{listed(names[:8])}{', ...' * (len(names) > 8)}. Give the path "
            "of one."
        )
    return next(iter(found.values()))


def find_block(cascade: CascadeView, target: object) -> str:
    """Returns the name of the block that a path, layer or variable is in.

    Raises:
        ValueError: It is in no block.
        TypeError: It is none of these.
    """
    if isinstance(target, str) and target in cascade.blocks:
        return target
    if isinstance(target, str):
        target = find_layer(cascade, target)
    if not isinstance(target, keras.Operation | keras.Variable):
        raise TypeError(
            "block_of takes a path such as 'upstream/conv3', a layer or a "
            f"variable; received {target!r}."
        )
    for name, block in cascade.blocks.items():
        if _is_in(target, block):
            return name
    raise ValueError(
        f"{target!r} is in no block of the cascade '{cascade.name}', "
        f"{listed(cascade.blocks)}. A cascade has copies of the networks that "
        "it was built from: take the layer from the cascade, as in "
        "cascade.get_layer('upstream/conv3')."
    )


def no_block(name: str, blocks: list[str]) -> str:
    """Returns the error message for a block that there is not."""
    return (
        f"The cascade has no block '{name}'.{closest(name, blocks)} There are: "
        f"{listed(blocks)}."
    )


def _is_in(
    target: keras.Operation | keras.Variable, block: keras.Layer
) -> bool:
    if isinstance(target, keras.Variable):
        return any(x is target for x in block.variables)
    inside = [block, *(layer for _, layer in leaf_layers(block))]
    operations = getattr(block, "operations", [])
    return any(x is target for x in (*inside, *operations))
