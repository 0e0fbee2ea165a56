"""Attention.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from typing import Any

import numpy as np
from keras import ops

from keras_cascade.networks.pytorch.operation import Operand, Operation
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.registry import rule
from keras_cascade.networks.pytorch.values import (
    Value,
    in_plain_order,
    plain,
    tensor_in,
)

# Keras has the heads after the positions, PyTorch before them.
_KERAS = (0, 2, 1, 3)
_NEVER = -1e9


@rule("scaled_dot_product_attention")
def attention(
    op: Operation,
    query: Operand,
    key: Operand,
    value: Operand,
    attn_mask: Operand = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Scaled dot-product attention."""
    attn_mask = None if _hides_nothing(op, attn_mask) else attn_mask
    parts = [op.for_each_sample(op.value(x)) for x in (query, key, value)]
    factor = float(parts[0].shape[-1]) ** -0.5 if scale is None else scale
    if parts[0].rank != 4 or enable_gqa:
        return _by_hand(op, parts, attn_mask, is_causal, factor)
    tensors = [tensor_in(part, _KERAS) for part in parts]
    mask = _mask(op, attn_mask, parts, is_causal)
    result = ops.dot_product_attention(*tensors, scale=factor, **mask)
    return Value(result, op.shape, _KERAS)


def _hides_nothing(op: Operation, mask: Operand) -> bool:
    """Returns whether a mask is a constant that changes no score."""
    if mask is None or isinstance(mask, Value | Parameter):
        return False
    array = op.array(mask)
    return bool(array.all() if array.dtype == bool else not array.any())


def _mask(
    op: Operation, mask: Operand, parts: list[Value], is_causal: bool
) -> dict[str, Any]:
    if is_causal:
        return {"is_causal": True}
    if mask is None:
        return {}
    ready = op.operand(mask, plain(4))
    dtype = getattr(ready, "dtype", None)
    is_bool = str(dtype) == "bool"
    if isinstance(ready, np.ndarray) or len(ready.shape) < 4:
        ready = op.value(mask) if not isinstance(mask, Value) else mask
        ready = op.operand(ready, plain(4))
    if len(ready.shape) < 4:
        for _ in range(4 - len(ready.shape)):
            ready = ops.expand_dims(ready, 0)
    if is_bool:
        return {"mask": ready}
    return {"bias": ready}


def _by_hand(
    op: Operation,
    parts: list[Value],
    mask: Operand,
    is_causal: bool,
    scale: float,
) -> Value:
    query, key, value = (in_plain_order(part) for part in parts)
    groups = 1
    if query.rank == 4 and query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
    keys, values = (
        ops.repeat(x.tensor, groups, axis=1) if groups > 1 else x.tensor
        for x in (key, value)
    )
    scores = ops.multiply(
        ops.matmul(query.tensor, ops.swapaxes(keys, -1, -2)), scale
    )
    if is_causal:
        length = query.shape[-2]
        lower = np.tril(np.ones((length, key.shape[-2]), bool))
        scores = ops.where(lower, scores, _NEVER)
    elif mask is not None:
        ready = op.operand(mask, plain(query.rank))
        if "bool" in str(ready.dtype):
            scores = ops.where(ready, scores, _NEVER)
        else:
            scores = ops.add(scores, ready)
    result = ops.matmul(ops.softmax(scores, axis=-1), values)
    return Value(result, op.shape, plain(query.rank))
