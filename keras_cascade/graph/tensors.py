"""Makes inputs that look like other tensors, and packs structures.

Tested by `tests/graph/test_copying.py`.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_cascade import _keras_compat as compat


def input_like(
    tensor: keras.KerasTensor, name: str | None
) -> keras.KerasTensor:
    """Returns an input with the properties of a tensor, batch included.

    These are shape, dtype, sparse and ragged; like an input that may be None,
    it may be None.

    Args:
        tensor: The tensor.
        name: The name of the input; None has Keras number it.
    """
    result: Any = keras.Input(
        batch_shape=tensor.shape,
        dtype=tensor.dtype,
        sparse=tensor.sparse,
        ragged=tensor.ragged,
        name=name,
        optional=compat.may_be_none(tensor),
    )
    return result


def pack_in_order(structure: Any, flat: Sequence[Any]) -> Any:
    """Returns flat values in a structure, the keys of dicts in their order.

    Keras's own function sorts them, and with sorted keys a Functional takes a
    list in place of the dict.
    """
    return _in_order(structure, keras.tree.pack_sequence_as(structure, flat))


def _in_order(structure: Any, packed: Any) -> Any:
    if isinstance(structure, dict):
        return {k: _in_order(x, packed[k]) for k, x in structure.items()}
    if type(structure) in (list, tuple):
        pairs = zip(structure, packed, strict=True)
        return type(structure)(_in_order(x, y) for x, y in pairs)
    return packed
