"""Recurrent layers.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value, plain, tensor_in


@rule("lstm.input", weights=("params",))
def lstm(
    op: Operation,
    input: Operand,
    hx: Any,
    params: Sequence[Parameter],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """LSTM layers, one of Keras for each layer and direction."""
    return _recurrent(
        op,
        input,
        params,
        has_biases,
        num_layers,
        dropout,
        bidirectional,
        batch_first,
        "lstm",
        hx,
    )


@rule("gru.input", weights=("params",))
def gru(
    op: Operation,
    input: Operand,
    hx: Any,
    params: Sequence[Parameter],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
) -> tuple[Value, ...]:
    """GRU layers, one of Keras for each layer and direction."""
    return _recurrent(
        op,
        input,
        params,
        has_biases,
        num_layers,
        dropout,
        bidirectional,
        batch_first,
        "gru",
        hx,
    )


def _recurrent(
    op: Operation,
    input: Operand,
    params: Sequence[Any],
    has_biases: bool,
    num_layers: int,
    dropout: float,
    bidirectional: bool,
    batch_first: bool,
    kind: str,
    states: Any,
) -> tuple[Value, ...]:
    if not op.makes_layer:
        raise ValueError(
            f"'{op.path}' has weights that are used elsewhere too."
        )
    for state in states if isinstance(states, list | tuple) else [states]:
        if isinstance(state, Value | Parameter) or bool((state != 0).any()):
            raise ValueError(
                f"'{op.path}' begins with a state of its own; states that are "
                "0 are possible."
            )
    value = op.value(input)
    order = (0, 1, 2) if batch_first else (1, 0, 2)
    tensor = tensor_in(value, order)
    directions = 2 if bidirectional else 1
    size = 4 if has_biases else 2
    finals: list[list[Any]] = []
    for layer in range(num_layers):
        if layer and dropout:
            tensor = layers.Dropout(
                dropout, name=op.builder.names.new(f"{op.path}.dropout")
            )(tensor)
        outputs = []
        for direction in range(directions):
            start = (layer * directions + direction) * size
            made = _layer(
                op,
                params[start : start + size],
                kind,
                direction,
                (layer, direction),
            )
            sequence, *final = made(tensor)
            finals.append(final)
            if direction:
                sequence = ops.flip(sequence, axis=1)
            outputs.append(sequence)
        tensor = (
            outputs[0] if directions == 1 else ops.concatenate(outputs, axis=-1)
        )
    shapes = op.shape
    result = [Value(tensor, shapes[0], order)]
    for index, shape in enumerate(shapes[1:]):
        stacked = ops.stack([final[index] for final in finals], axis=0)
        result.append(Value(stacked, shape, plain(3)))
    return tuple(result)


def _layer(
    op: Operation,
    weights: Sequence[Any],
    kind: str,
    direction: int,
    place: tuple[int, int],
) -> Any:
    kernel, recurrent, *biases = weights
    units = recurrent.shape[1]
    cls = layers.LSTM if kind == "lstm" else layers.GRU
    # PyTorch's gates of a GRU are reset, update, new; Keras's update, reset.
    gates = [0, 1, 2, 3] if kind == "lstm" else [1, 0, 2]
    extra = {} if kind == "lstm" else {"reset_after": True}
    return op.builder.recurrent(
        op.path,
        (op.key, place),
        lambda **names: cls(
            units,
            return_sequences=True,
            return_state=True,
            use_bias=bool(biases),
            go_backwards=bool(direction),
            **extra,
            **names,
        ),
        [
            ("kernel", kernel, lambda a: _gates(a, gates).T),
            ("recurrent_kernel", recurrent, lambda a: _gates(a, gates).T),
        ],
        ("bias", biases, lambda *arrays: _bias(arrays, gates, kind))
        if biases
        else None,
    )


def _gates(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    parts = np.split(array, len(order))
    return np.concatenate([parts[i] for i in order])


def _bias(
    arrays: Sequence[np.ndarray], gates: Sequence[int], kind: str
) -> np.ndarray:
    """Returns PyTorch's two biases as Keras's: added for an LSTM."""
    both = [_gates(array, gates) for array in arrays]
    return both[0] + both[1] if kind == "lstm" else np.stack(both)
