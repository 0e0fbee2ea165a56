"""Pulls weights to their pretrained values (L2-SP)."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_cascade.training.retention.method import Retention

# A weight, or a tensor in its place, and its pretrained value.
Pull = tuple[Any, keras.Variable]


@keras.saving.register_keras_serializable(package="keras_cascade")
class L2SP(Retention):
    """Pulls weights to the pretrained ones, all with the same strength.

    The penalty is `strength / 2 * sum((w - w0)**2)` over the weights that the
    pattern covers, without moments of normalisation. It costs next to nothing
    and needs no data: the first thing to try. Use it instead of weight decay
    on these weights, which pulls them to 0.

    Args:
        strength: The factor of the penalty; at least 0. The paper tries 0.001
            to 1.

    Raises:
        ValueError: If the strength is negative or not a number.

    Example:
    >>> cascade = kc.build_cascade(
    ...     network, trainable=True, retention={"upstream": kc.L2SP(0.1)}
    ... )

    Source: Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer
    Learning with Convolutional Networks (ICML 2018), equation 2.
    """

    loss_name = "l2sp_loss"

    def penalty(self, pulls: Iterable[Pull]) -> Any:
        """Returns the penalty on pairs of a weight and its pretrained value."""
        distances: list[Any] = [
            ops.sum(ops.square(difference(weight, anchor)))
            for weight, anchor in pulls
        ]
        return 0.5 * self.strength * sum(distances)


def difference(weight: object, anchor: keras.Variable) -> Any:
    """Returns weight - anchor, in float32 or better."""
    # In float16 or bfloat16 the small distance of two weights is rounded away.
    dtype = keras.backend.result_type(anchor.dtype, "float32")
    return ops.subtract(ops.cast(weight, dtype), ops.cast(anchor, dtype))
