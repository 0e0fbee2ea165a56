"""LoRA as a value of `trainable`: what the user says, and where it goes."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.adapters import Adapter
from keras_cascade.graph import low_rank


@keras.saving.register_keras_serializable(package="keras_cascade")
@dataclass(frozen=True)
class LoRA:
    """A value of `trainable`: low-rank updates only (Hu et al. 2021).

    For large pretrained layers and little data. A kernel W stays as it is,
    bit for bit; what trains are A and B in W + alpha / rank · A B, B being 0
    at first, so that the network starts as it was. Biases, normalisations and
    all layers that have no such update are frozen. Dense, EinsumDense,
    convolutions and Embedding have one, also inside attention and encoder
    layers; Keras's `enable_lora` computes it. Copies, `to_plain()` and
    networks that are used again have the merged kernels.

    Args:
        rank: The width of A and height of B, at least 1. A kernel of n to m
            features trains rank · (n + m) parameters.
        alpha: The update is multiplied by alpha / rank. `None` is the rank: a
            factor of 1. Defaults to `None`.

    Raises:
        ValueError: If the rank is no positive int, or alpha no positive
            number.

    Example:
    >>> cascade = kc.build_cascade(
    ...     kc.zoo.load("glyph_encoder"),
    ...     head=10,
    ...     trainable={"upstream/stage4_*": kc.LoRA(4, alpha=8)},
    ... )
    """

    rank: int
    alpha: float | None = None

    def __post_init__(self):
        if (
            not isinstance(self.rank, int)
            or isinstance(self.rank, bool)
            or self.rank < 1
        ):
            raise ValueError(
                f"LoRA(rank={self.rank!r}): the rank must be an int of at "
                "least 1, such as LoRA(8)."
            )
        if self.alpha is not None and not _is_positive(self.alpha):
            raise ValueError(
                f"LoRA({self.rank}, alpha={self.alpha!r}): alpha must be a "
                "positive number, or None for the rank, a factor of 1."
            )

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "LoRA":
        """The value of these arguments."""
        return cls(**config)


def apply_lora(layer: keras.Layer, lora: LoRA, path: str) -> bool:
    """Trains a layer by low-rank updates only, if it has any.

    Args:
        layer: A layer that is no network, built. One that has none is frozen.
        lora: Rank and alpha.
        path: Where the layer is, for errors.

    Returns:
        Whether it has any.

    Raises:
        ValueError: If it cannot have one: it is quantised, has a constraint
            on its kernel, or has one of another rank.
    """
    inner = _updatable(layer)
    for one in inner:
        _check_possible(one, lora.rank, path)
    for one in inner:
        alpha = lora.rank if lora.alpha is None else lora.alpha
        low_rank.enable(one, lora.rank, alpha)
    low_rank.set_flag(layer, bool(inner))
    return bool(inner)


def adopt_own(layers: Iterable[keras.Layer]) -> None:
    """Treats low-rank updates alike that layers were made with.

    A layer of the user's, `Dense(8, lora_rank=2)`, has its own as soon as it
    is built.
    """
    for layer in layers:
        own: list[Any] = list(low_rank.low_rank_layers(layer))
        for one in own:
            low_rank.enable(one, one.lora_rank, one.lora_alpha)
        if own:
            low_rank.set_flag(layer, layer.trainable)


def check_not_shared(
    trainable: Any, networks: Mapping[str, keras.Model]
) -> None:
    """Explains that LoRA needs copies.

    Args:
        trainable: The argument.
        networks: The networks whose own layers are to be used, by block.

    Raises:
        ValueError: If LoRA is asked for, or a network has it already.
    """
    values = trainable.values() if isinstance(trainable, Mapping) else ()
    if any(isinstance(value, LoRA) for value in values):
        raise ValueError(
            "trainable asks for LoRA, which puts weights into the networks' "
            "layers, and with copy=False these are your own. Build with "
            "copy=True."
        )
    for block, network in networks.items():
        for layer in low_rank.low_rank_layers(network):
            raise ValueError(
                f"Layer '{layer.name}' of '{block}' has LoRA enabled, which "
                "Keras does not load as it was saved. Build with copy=True: "
                "the copy has the merged kernel, and answers the same."
            )


def possible_paths(layers: Mapping[tuple[str, ...], keras.Layer]) -> list[str]:
    """The paths of the layers that can have LoRA."""
    return ["/".join(p) for p, layer in layers.items() if _updatable(layer)]


def _updatable(layer: keras.Layer) -> list[keras.Layer]:
    """The layers in a layer that take low-rank updates; adapters have none.

    An adapter's weights are new: there is nothing to keep.
    """
    if isinstance(layer, Adapter):
        return []
    return [x for x in compat.sublayers(layer) if low_rank.takes_low_rank(x)]


def _check_possible(layer: Any, rank: int, path: str) -> None:
    problem = None
    if layer.quantization_mode is not None:
        problem = f"is quantised ({layer.quantization_mode})"
    elif low_rank.constraint(layer):
        problem = "has a constraint on its kernel"
    elif low_rank.has_low_rank(layer) and layer.lora_rank != rank:
        problem = f"has LoRA of rank {layer.lora_rank} already"
    if problem:
        name = "" if path.endswith(layer.name) else f" (its '{layer.name}')"
        raise ValueError(
            f"trainable asks for LoRA on '{path}'{name}, which {problem}; "
            f"that does not go with LoRA({rank}). Leave it out with a later "
            f"entry, {{'{path}': False}}."
        )


def _is_positive(value: object) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and 0 < float(value) < math.inf
    )
