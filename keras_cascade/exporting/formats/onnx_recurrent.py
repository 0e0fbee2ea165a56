"""Writes LSTM and GRU layers as ONNX's own operators, on the torch backend.

These run over sequences of any length. Torch's tracing knows the length of the
loops that Keras computes them with, and unrolls them.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import keras

if TYPE_CHECKING:
    import torch

    Recurrent = tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]

_ACTIVATIONS = {
    keras.activations.relu: "Relu",
    keras.activations.sigmoid: "Sigmoid",
    keras.activations.tanh: "Tanh",
}
# Keras has the gates input, forget, cell, output; ONNX wants the output second.
_LSTM_GATES = (0, 3, 1, 2)
# Both have update, reset, hidden.
_GRU_GATES = (0, 1, 2)
# Time, batch and features come in; all states and the last ones come out.
_SCHEMAS = {
    "lstm": "(Tensor x, Tensor w, Tensor r, Tensor b, Tensor h, Tensor c, "
    "str[] activations) -> (Tensor, Tensor, Tensor)",
    "gru": "(Tensor x, Tensor w, Tensor r, Tensor b, Tensor h, "
    "str[] activations, bool reset_after) -> (Tensor, Tensor)",
}


def lstm(
    original: Callable,
    inputs: "torch.Tensor",
    initial_state_h: "torch.Tensor",
    initial_state_c: "torch.Tensor",
    mask: "torch.Tensor | None",
    kernel: "torch.Tensor",
    recurrent_kernel: "torch.Tensor",
    bias: "torch.Tensor",
    activation: Callable,
    recurrent_activation: Callable,
    return_sequences: bool = False,
    go_backwards: bool = False,
    unroll: bool = False,
) -> "Recurrent":
    """Runs Keras's `backend.lstm` by an operator that ONNX has."""
    names = _names(mask, recurrent_activation, activation, activation)
    weights = _weights(kernel, recurrent_kernel, bias, _LSTM_GATES)
    states = [initial_state_h[None], initial_state_c[None]]
    series = _series(inputs, go_backwards)
    found = _operators()["lstm"](series, *weights, *states, names)
    return _as_keras(*found, return_sequences=return_sequences)


def gru(
    original: Callable,
    inputs: "torch.Tensor",
    initial_state: "torch.Tensor",
    mask: "torch.Tensor | None",
    kernel: "torch.Tensor",
    recurrent_kernel: "torch.Tensor",
    bias: "torch.Tensor",
    activation: Callable,
    recurrent_activation: Callable,
    return_sequences: bool = False,
    go_backwards: bool = False,
    unroll: bool = False,
    reset_after: bool = True,
) -> "Recurrent":
    """Runs Keras's `backend.gru` by an operator that ONNX has."""
    names = _names(mask, recurrent_activation, activation)
    weights = _weights(kernel, recurrent_kernel, bias, _GRU_GATES)
    series, state = _series(inputs, go_backwards), initial_state[None]
    found = _operators()["gru"](series, *weights, state, names, reset_after)
    return _as_keras(*found, return_sequences=return_sequences)


def translations() -> Mapping[Callable, Callable]:
    """Returns how torch's converter writes the operators."""
    from onnxscript import opset18 as onnx

    def write_lstm(
        x: Any,
        w: Any,
        r: Any,
        b: Any,
        h: Any,
        c: Any,
        activations: Any,
    ) -> Any:
        size = h.shape[-1]
        names = list(activations)
        return onnx.LSTM(
            x, w, r, b, None, h, c, activations=names, hidden_size=size
        )

    def write_gru(
        x: Any,
        w: Any,
        r: Any,
        b: Any,
        h: Any,
        activations: Any,
        after: Any,
    ) -> Any:
        return onnx.GRU(
            x,
            w,
            r,
            b,
            None,
            h,
            activations=list(activations),
            hidden_size=h.shape[-1],
            linear_before_reset=int(after),
        )

    own = _operators()
    return {own["lstm"]: write_lstm, own["gru"]: write_gru}


@cache
def _operators() -> dict[str, Callable]:
    """Defines the operators for torch, which traces shapes alone."""
    import torch

    for name, schema in _SCHEMAS.items():
        torch.library.define(f"keras_cascade::{name}", schema)

    def shapes(
        x: "torch.Tensor",
        w: "torch.Tensor",
        r: "torch.Tensor",
        b: "torch.Tensor",
        *rest: Any,
    ) -> Any:
        states = [tensor for tensor in rest if torch.is_tensor(tensor)]
        steps, batch, _ = x.shape
        every = x.new_empty((steps, 1, batch, r.shape[-1]))
        return every, *(torch.empty_like(state) for state in states)

    own = torch.ops.keras_cascade
    for name in _SCHEMAS:
        torch.library.register_fake(f"keras_cascade::{name}", shapes)
    return {name: getattr(own, name).default for name in _SCHEMAS}


def _names(mask: "torch.Tensor | None", *functions: Callable) -> list[str]:
    """Returns the names of activations.

    Raises:
        NotImplementedError: ONNX's operators do not compute this. Keras then
            computes the layer by its loop.
    """
    if mask is not None or not all(x in _ACTIVATIONS for x in functions):
        raise NotImplementedError
    return [_ACTIVATIONS[x] for x in functions]


def _series(inputs: "torch.Tensor", go_backwards: bool) -> "torch.Tensor":
    """Returns the inputs of each step."""
    series = inputs.permute(1, 0, 2)
    return series.flip(0) if go_backwards else series


def _weights(
    kernel: "torch.Tensor",
    recurrent: "torch.Tensor",
    bias: "torch.Tensor",
    gates: tuple[int, ...],
) -> list["torch.Tensor"]:
    """Returns Keras's weights as ONNX has them."""
    import torch

    def ordered(weight: torch.Tensor) -> torch.Tensor:
        # A layer hands over its variable. Slices are computed in advance by
        # torch's converter, which splitting is not.
        values = cast(torch.Tensor, keras.ops.convert_to_tensor(weight))
        size = values.shape[-1] // len(gates)
        parts = [values[..., size * i : size * (i + 1)] for i in gates]
        return torch.cat(parts, -1)

    kernel, recurrent = ordered(kernel), ordered(recurrent)
    if bias is None:
        both = kernel.new_zeros((2, kernel.shape[-1]))
    elif len(bias.shape) == 1:
        # Only a GRU that resets afterwards has one for the states too.
        both = torch.stack([ordered(bias), kernel.new_zeros(bias.shape)])
    else:
        both = ordered(bias)
    return [kernel.T[None], recurrent.T[None], both.reshape(1, -1)]


def _as_keras(
    every: "torch.Tensor", *states: "torch.Tensor", return_sequences: bool
) -> "Recurrent":
    """Returns the last output, the outputs, and the states."""
    last = states[0][0]
    outputs = last[:, None]
    if return_sequences:
        outputs = every[:, 0].permute(1, 0, 2)
    return last, outputs, [state[0] for state in states]
