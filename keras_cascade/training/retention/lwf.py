"""Distils a network's old outputs on the new data into it (LwF)."""

from collections.abc import Iterable
from typing import Any

import keras
from keras import ops

from keras_cascade.training.retention.method import Retention, finite_number
from keras_cascade.training.retention.output_kinds import (
    Kind,
    check_kind,
    divergence,
)


@keras.saving.register_keras_serializable(package="keras_cascade")
class LwF(Retention):
    """Distils a network's own old outputs on the new data into it.

    The penalty is `strength * KL(old outputs || new outputs)`, both at the
    temperature, mean over the batch, summed over several outputs: the paper's
    cross-entropy less the entropy of the old outputs, so that it is 0 while
    nothing is forgotten. The old outputs are those of a frozen copy of the
    network; the new ones those of its layers in the cascade, followed by its
    old head, frozen, where the cascade leaves it out. It needs no old data,
    and the network's outputs must be probabilities or logits.

    Both are computed in inference mode, from the inputs that the network gets
    in the cascade (without augmentation; sample weights do not count). No
    gradient flows into what computes these inputs. Inputs that are features
    are computed again.

    Each step costs a forward pass of the old network and a forward and
    backward pass of the new one on top: with an upstream that trains whole,
    about twice the time of a step without.

    Args:
        strength: The factor of the penalty; at least 0.
        temperature: Divides the logits of both; above 1, less probable
            classes count more. Defaults to `2.0`.
        outputs: The kind of the network's outputs: `"softmax"`, `"sigmoid"`
            (probabilities), `"softmax_logits"` or `"sigmoid_logits"`. `None`
            reads the activation of the last layer. Defaults to `None`.

    Raises:
        ValueError: If the strength is negative, the temperature not positive,
            or `outputs` none of the above.

    Example:
    >>> cascade = kc.build_cascade(
    ...     classifier, taps="features", head=10, trainable=True,
    ...     retention={"upstream": kc.LwF(1.0)},
    ... )

    Source: Li, Hoiem: Learning without Forgetting (ECCV 2016), equations 2
    and 3.
    """

    loss_name = "lwf_loss"
    arguments = ("strength", "temperature", "outputs")

    def __init__(
        self,
        strength: float,
        temperature: float = 2.0,
        outputs: str | None = None,
    ):
        super().__init__(strength)
        self.temperature = finite_number(
            temperature, "The temperature of LwF", zero=False
        )
        self.outputs = check_kind(outputs, "LwF")
        if self.outputs == "linear":
            raise ValueError(
                "LwF's outputs is 'linear', and such outputs have no "
                "temperature. It is for classifiers: 'softmax', 'sigmoid', "
                "'softmax_logits', 'sigmoid_logits'. For a regression take "
                "L2SP or EWC."
            )

    def penalty(
        self,
        old: Iterable[object],
        new: Iterable[object],
        kinds: Iterable[Kind],
    ) -> Any:
        """Returns the penalty on old and new outputs."""
        divergences: list[Any] = [
            ops.mean(divergence(a, b, kind, self.temperature))
            for a, b, kind in zip(old, new, kinds, strict=True)
        ]
        return self.strength * sum(divergences)
