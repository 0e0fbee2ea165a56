"""L2-SP: weights are pulled to what they were pretrained to."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_cascade.training.retention.method import Retention

Pull = tuple[keras.Variable, keras.Variable]


@keras.saving.register_keras_serializable(package="keras_cascade")
class L2SP(Retention):
    """Pulls weights to the pretrained ones, all with the same strength.

    The penalty is `strength / 2 * sum((w - w0)**2)` over the weights that the
    pattern covers, moments of normalisation left out. It costs next to
    nothing and needs no data: the first thing to try. Use it instead of
    weight decay on these weights, which pulls them to 0.

    Args:
        strength: Of the pull; at least 0. The paper tries 0.001 to 1.

    Raises:
        ValueError: If the strength is negative or no number.

    Example:
    >>> cascade = kc.build_cascade(
    ...     network, trainable=True, retention={"upstream": kc.L2SP(0.1)}
    ... )

    Source: Li, Grandvalet, Davoine: Explicit Inductive Bias for Transfer
    Learning with Convolutional Networks (ICML 2018), equation 2.
    """

    loss_name = "l2sp_loss"

    def penalty(self, pulls: Iterable[Pull]) -> Any:
        """The penalty on pairs of a weight and what it was."""
        distances: list[Any] = [
            ops.sum(ops.square(difference(weight, anchor)))
            for weight, anchor in pulls
        ]
        return 0.5 * self.strength * sum(distances)


def difference(weight: Any, anchor: keras.Variable) -> Any:
    """How far a weight is from what it was, in float32 or better."""
    dtype = keras.backend.result_type(anchor.dtype, "float32")
    return ops.cast(weight, dtype) - ops.cast(anchor, dtype)
