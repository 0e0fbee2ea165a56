"""Pulls weights to their pretrained values, by their importance (EWC)."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import data as user_data
from keras_cascade.training.retention.l2sp import difference
from keras_cascade.training.retention.method import Retention
from keras_cascade.training.retention.output_kinds import check_kind

# A weight, or a tensor in its place, its pretrained value, and its Fisher
# information.
Pull = tuple[Any, keras.Variable, keras.Variable]


@keras.saving.register_keras_serializable(package="keras_cascade")
class EWC(Retention):
    """Pulls weights to the pretrained ones, the harder the old task needs them.

    The penalty is `strength / 2 * sum(F * (w - w0)**2)`, where F is the
    diagonal of the Fisher information of the original network, with its old
    head, on its old data: the mean over the samples. It is estimated once,
    when the cascade is built, in one pass whose memory does not depend on the
    number of samples; labels are not needed.

    Args:
        strength: The factor of the penalty; at least 0. Fisher information is
            small where a network is confident: try 10 to 10,000.
        data: The data that the network was trained on, or some hundred
            samples of it, in any form that `fit` takes, as inputs of the
            network itself.
        outputs: The kind of the network's outputs: `"softmax"`, `"sigmoid"`
            (probabilities), `"softmax_logits"`, `"sigmoid_logits"`, or
            `"linear"` (means of Gaussians of variance 1). `None` reads the
            activation of the last layer: linear where it is neither softmax
            nor sigmoid. Defaults to `None`.
        probes: The number of random directions for each batch. The squared
            gradient along a random sign for each sample and output has the
            exact sum of squares as its mean, for one backward pass. `None`
            takes the exact sum, with a backward pass for each sample and
            output. Defaults to `1`.
        batch_size: The size of a batch where the data are arrays. Defaults to
            `32`.
        seed: The seed of the random signs. Defaults to `0`.

    Raises:
        ValueError: If the strength is negative or not a number, or `outputs`
            or `probes` is none of the above.
        TypeError: If the data are of a type that cannot be read.

    Example:
    >>> ewc = kc.EWC(100, old_images)
    >>> cascade = kc.build_cascade(
    ...     network, head=10, trainable=True, retention={"upstream": ewc}
    ... )

    Source: Kirkpatrick et al.: Overcoming catastrophic forgetting in neural
    networks (PNAS 2017), equation 3.
    """

    loss_name = "ewc_loss"
    arguments = ("strength", "outputs", "probes", "batch_size", "seed")

    def __init__(
        self,
        strength: float,
        data: Any,
        outputs: str | None = None,
        probes: int | None = 1,
        batch_size: int = 32,
        seed: int = 0,
    ):
        super().__init__(strength)
        if data is not None:
            # Opens the data, which raises an error if that is not possible.
            user_data.length(data, batch_size)
        self.data = data
        self.outputs = check_kind(outputs, "EWC")
        if probes is not None and (not isinstance(probes, int) or probes < 1):
            raise ValueError(
                f"EWC's probes is {probes!r}. It must be at least 1, or None "
                "for the exact Fisher information."
            )
        self.probes = probes
        self.batch_size = batch_size
        self.seed = seed
        # The Fisher information of a cascade that is rebuilt, by weight.
        self.known: Mapping[str, np.ndarray] = {}

    def penalty(self, pulls: Iterable[Pull]) -> Any:
        """Returns the penalty on weights."""
        distances: list[Any] = [
            ops.sum(fisher * ops.square(difference(weight, anchor)))
            for weight, anchor, fisher in pulls
        ]
        return 0.5 * self.strength * sum(distances)

    def with_known(self, known: Mapping[str, np.ndarray]) -> "EWC":
        """Returns a copy that does not estimate the known values again."""
        copy = type(self)(data=self.data, **self.get_config())
        copy.known = known
        return copy

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "EWC":
        """Returns the method of a config, without data."""
        return cls(data=None, **config)
