"""Trains layers by low-rank updates, where `trainable` has a `LoRA`."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.adapters import Adapter
from keras_cascade.graph import low_rank
from keras_cascade.graph.paths import LayerPath


@keras.saving.register_keras_serializable(package="keras_cascade")
@dataclass(frozen=True)
class LoRA:
    """A value of `trainable`: low-rank updates only (Hu et al. 2021).

    For large pretrained layers and little data. A kernel W stays as it is,
    bit for bit; only A and B train in W + alpha / rank · A B. B starts at 0,
    so that the network starts as it was. Biases, normalisations and all
    layers without such an update are frozen. Dense, EinsumDense, convolutions
    and Embedding have one, also inside attention and encoder layers; Keras's
    `enable_lora` computes it. Copies, `to_plain()` and networks that are used
    again have the merged kernels.

    Args:
        rank: The width of A and height of B, at least 1. A kernel of n to m
            features trains rank · (n + m) parameters.
        alpha: The update is multiplied by alpha / rank. `None` means the
            rank, a factor of 1. Defaults to `None`.

    Raises:
        ValueError: If the rank is not a positive int, or alpha not a
            positive number.

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
        """Returns the arguments."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "LoRA":
        """Returns a LoRA of these arguments."""
        return cls(**config)


def apply_lora(layer: keras.Layer, lora: LoRA, path: str) -> bool:
    """Trains a built layer by low-rank updates only, or freezes it.

    Returns whether the layer takes low-rank updates. Raises a ValueError if
    it is quantised, has a constraint, or has an update of another rank.
    """
    inner = _updatable(layer)
    for one in inner:
        _check_possible(one, lora.rank, path)
    alpha = lora.rank if lora.alpha is None else lora.alpha
    for one in inner:
        low_rank.enable(one, lora.rank, alpha)
    low_rank.set_flag(layer, bool(inner))
    return bool(inner)


def adopt_existing_updates(layers: Iterable[keras.Layer]) -> None:
    """Enables low-rank updates again that layers were made with.

    A layer of the user's, `Dense(8, lora_rank=2)`, has one as soon as it is
    built.
    """
    for layer in layers:
        # Keras saves such a layer's merged kernel, and loads A = B = 0.
        inner = list(low_rank.low_rank_layers(layer))
        for one in inner:
            low_rank.enable(one, *_rank_and_alpha(one))
        if inner:
            low_rank.set_flag(layer, layer.trainable)


def check_lora_on_copies(
    trainable: object, networks: Mapping[str, keras.Model]
) -> None:
    """Raises a ValueError if the networks' own layers would have LoRA."""
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
                "the copy has the merged kernel, and the same outputs."
            )


def possible_paths(layers: Mapping[LayerPath, keras.Layer]) -> list[str]:
    """Returns the paths of the layers that can have LoRA."""
    return ["/".join(p) for p, layer in layers.items() if _updatable(layer)]


def _updatable(layer: keras.Layer) -> list[keras.Layer]:
    """Returns the layers in a layer that take low-rank updates."""
    if isinstance(layer, Adapter):
        return []  # An adapter's weights are new: there is nothing to keep.
    return [x for x in compat.sublayers(layer) if low_rank.takes_low_rank(x)]


def _rank_and_alpha(layer: keras.Layer) -> tuple[int, float]:
    attributes = vars(layer)
    return attributes["lora_rank"], attributes["lora_alpha"]


def _check_possible(layer: keras.Layer, rank: int, path: str) -> None:
    problem = None
    if layer.quantization_mode is not None:
        problem = f"is quantised ({layer.quantization_mode})"
    elif low_rank.constraint(layer):
        problem = "has a constraint on its kernel"
    elif low_rank.has_low_rank(layer):
        own_rank, _ = _rank_and_alpha(layer)
        if own_rank != rank:
            problem = f"has LoRA of rank {own_rank} already"
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
