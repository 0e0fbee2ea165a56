"""Recurrent layers.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from keras import layers, ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import Value, plain, tensor_in


@rule(
    "lstm.input",
    "gru.input",
    "rnn_tanh.input",
    "rnn_relu.input",
    weights=("params",),
)
def recurrent(
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
    """Recurrent layers, one of Keras for each layer and direction."""
    _check(op, hx)
    order = (0, 1, 2) if batch_first else (1, 0, 2)
    tensor = tensor_in(op.value(input), order)
    finals: list[list[Any]] = []
    for weights in _of_layers(params, num_layers, bidirectional):
        if finals and dropout:
            name = op.builder.names.new(f"{op.path}.dropout")
            tensor = layers.Dropout(dropout, name=name)(tensor)
        tensor, *states = _both_ways(op, weights, tensor, len(finals))
        finals.extend(states)
    ends = (
        Value(ops.stack(states, axis=0), shape, plain(3))
        for states, shape in zip(
            zip(*finals, strict=True), op.shape[1:], strict=True
        )
    )
    return Value(tensor, op.shape[0], order), *ends


def _check(op: Operation, states: Any) -> None:
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


def _of_layers(
    params: Sequence[Parameter], count: int, bidirectional: bool
) -> Iterator[list[Sequence[Parameter]]]:
    """Yields for each layer the weights of each direction."""
    directions = 2 if bidirectional else 1
    size = len(params) // (count * directions)
    for start in range(0, len(params), size * directions):
        yield [
            params[start + size * i : start + size * (i + 1)]
            for i in range(directions)
        ]


def _both_ways(
    op: Operation, weights: list[Sequence[Parameter]], tensor: Any, place: int
) -> tuple[Any, ...]:
    """Returns the sequence of a layer, and the last states by direction."""
    outputs, finals = [], []
    for direction, of_direction in enumerate(weights):
        made = _layer(op, of_direction, direction, (place, direction))
        sequence, *states = made(tensor)
        outputs.append(ops.flip(sequence, axis=1) if direction else sequence)
        finals.append(states)
    if len(outputs) == 1:
        return outputs[0], *finals
    return ops.concatenate(outputs, axis=-1), *finals


def _layer(
    op: Operation,
    weights: Sequence[Any],
    direction: int,
    place: tuple[int, int],
) -> Any:
    kernel, recurrent, *biases = weights
    units = recurrent.shape[1]
    cls, gates, extra = _KINDS[op.kind.split(".")[1]]
    if len(biases) not in (0, 2):
        raise ValueError(
            f"'{op.path}' projects its states (proj_size), which no layer of "
            "Keras does."
        )
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
        ("bias", biases, lambda *arrays: _bias(arrays, gates, cls))
        if biases
        else None,
    )


# For each kind: the layer, the place of each of its gates in PyTorch's order
# (reset, update, new of a GRU are Keras's update, reset, new), and arguments.
_KINDS: dict[str, tuple[Any, list[int], dict[str, Any]]] = {
    "lstm": (layers.LSTM, [0, 1, 2, 3], {}),
    "gru": (layers.GRU, [1, 0, 2], {"reset_after": True}),
    "rnn_tanh": (layers.SimpleRNN, [0], {}),
    "rnn_relu": (layers.SimpleRNN, [0], {"activation": "relu"}),
}


def _gates(array: np.ndarray, order: Sequence[int]) -> np.ndarray:
    parts = np.split(array, len(order))
    return np.concatenate([parts[i] for i in order])


def _bias(
    arrays: Sequence[np.ndarray], gates: Sequence[int], kind: type
) -> np.ndarray:
    """Returns PyTorch's two biases as Keras's: added, but for a GRU."""
    both = [_gates(array, gates) for array in arrays]
    return np.stack(both) if kind is layers.GRU else both[0] + both[1]
