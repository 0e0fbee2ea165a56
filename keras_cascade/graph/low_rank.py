"""Low-rank updates of single layers: what trains, is stored and is merged.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): a
kernel W stays as it is, and what trains is a product of two small matrices:
W + alpha / rank * A B. Keras's layers compute it; left alone they write the
merged kernel into a file, load A = B = 0, from where nothing trains, and let
W train again when their flag is set.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import _keras_compat as compat

# The number of a layer within the one that holds it, to its rank and alpha.
Ranks = Mapping[str, list]


def takes_low_rank(layer: keras.Layer) -> bool:
    """Whether Keras has low-rank updates for this very layer."""
    # KerasHub's networks have an enable_lora() too, for layers inside them.
    return hasattr(layer, "enable_lora") and hasattr(layer, "lora_enabled")


def has_low_rank(layer: keras.Layer) -> bool:
    """Whether this very layer has low-rank updates."""
    return bool(getattr(layer, "lora_enabled", False))


def low_rank_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Of a layer and the layers inside it, those with low-rank updates."""
    return filter(has_low_rank, compat.sublayers(layer))


def constraint(layer: keras.Layer) -> Any:
    """The constraint on what would be updated, which Keras refuses."""
    return getattr(layer, f"{_what(layer)}_constraint")


def factors(layer: keras.Layer) -> tuple[keras.Variable, keras.Variable]:
    """A and B of a layer that has them."""
    what = _what(layer)
    return getattr(layer, f"lora_{what}_a"), getattr(layer, f"lora_{what}_b")


def base(layer: keras.Layer) -> keras.Variable:
    """The variable that stays as it is: W."""
    with compat.low_rank_hidden(layer):
        return getattr(layer, _what(layer))


def enable(layer: keras.Layer, rank: int, alpha: float) -> None:
    """Gives a built layer a low-rank update, which changes nothing yet.

    Only A and B train from then on, whatever the layer's flag is set to. What
    the layer writes into a file is W, A and B, which is what it loads.

    Args:
        layer: A layer that takes one. One that Keras has given one already
            keeps its A and B.
        rank: The width of A and the height of B.
        alpha: What A B is multiplied by, times the rank.
    """
    if not has_low_rank(layer):
        layer.enable_lora(rank, lora_alpha=alpha)
        parent, _, _ = base(layer).path.rpartition("/")
        for factor in factors(layer):
            compat.set_variable_path(factor, f"{parent}/{factor.name}")
    # Some of Keras's layers forget it when they are made from a config.
    layer.lora_alpha = alpha
    own = factors(layer)
    compat.never_train(
        layer, [v for v in layer.variables if not _is_in(v, own)]
    )
    compat.save_and_load_with(layer, _save, _load)


def set_flag(layer: keras.Layer, flag: bool) -> None:
    """Sets a layer's flag: of one with low-rank updates, these alone train.

    Args:
        layer: The layer. What it holds besides such layers stays frozen.
        flag: Whether it trains.
    """
    for inner in compat.sublayers(layer):
        # On TensorFlow a flag that is set to what it was goes no further.
        inner.trainable = flag
    if flag and any(low_rank_layers(layer)):
        freeze_rest(layer)


def freeze_rest(layer: keras.Layer) -> None:
    """Freezes what is in a layer besides its low-rank updates."""
    updates = [x for inner in low_rank_layers(layer) for x in factors(inner)]
    for inner in compat.sublayers(layer):
        if not any(low_rank_layers(inner)):
            inner.trainable = False
    for variable in layer.variables:
        if not _is_in(variable, updates):
            variable.trainable = False


def ranks_of(layer: keras.Layer) -> dict[str, list]:
    """The ranks and alphas of a layer and the layers inside it."""
    return {
        str(number): [inner.lora_rank, inner.lora_alpha]
        for number, inner in enumerate(compat.sublayers(layer))
        if has_low_rank(inner)
    }


def enable_again(layer: keras.Layer, ranks: Ranks) -> None:
    """Enables what `ranks_of` read, on a layer that was made anew."""
    for number, inner in enumerate(list(compat.sublayers(layer))):
        if str(number) in ranks:
            enable(inner, *ranks[str(number)])


def same_ranks(layer: Any, other: Any) -> bool:
    """Whether A and B of one layer mean the same in another one."""
    return other is not None and (
        (layer.lora_rank, layer.lora_alpha)
        == (other.lora_rank, other.lora_alpha)
    )


def merged(layer: keras.Layer) -> Any:
    """W with the update in it, as a tensor of W's dtype."""
    a, b = factors(layer)
    scale = layer.lora_alpha / layer.lora_rank
    kernel = base(layer)
    return ops.cast(ops.add(kernel, scale * ops.matmul(a, b)), kernel.dtype)


def merge_into(source: keras.Layer, target: keras.Layer) -> None:
    """Gives a layer without low-rank updates what one with them computes.

    Raises:
        ValueError: If the source is quantised: merged, it would be rounded
            again, and answer otherwise.
    """
    if source.quantization_mode is not None:
        raise ValueError(
            f"Layer '{source.name}' is quantised "
            f"({source.quantization_mode}) and has LoRA: merged into its "
            "kernel, that would be rounded, and the copy would answer "
            "otherwise. Pass the network as it was before quantize()."
        )
    store: dict[str, Any] = {}
    with compat.low_rank_hidden(source):
        type(source).save_own_variables(source, store)
    values = {k: ops.convert_to_numpy(v) for k, v in store.items()}
    type(target).load_own_variables(
        target, {**values, "0": ops.convert_to_numpy(merged(source))}
    )


def plain_variables(layer: keras.Layer) -> list[keras.Variable]:
    """The variables of a layer without its low-rank updates."""
    updates = [x for inner in low_rank_layers(layer) for x in factors(inner)]
    return [v for v in layer.variables if not _is_in(v, updates)]


def _what(layer: keras.Layer) -> str:
    """What Keras calls W in this layer."""
    is_table = isinstance(layer, keras.layers.Embedding)
    return "embeddings" if is_table else "kernel"


def _save(layer: keras.Layer, store: Any) -> None:
    """Writes W where Keras writes the merged kernel, and A and B."""
    with compat.low_rank_hidden(layer):
        type(layer).save_own_variables(layer, store)
    store["lora_a"], store["lora_b"] = factors(layer)


def _load(layer: keras.Layer, store: Any) -> None:
    """Reads them again; of a file without, A stays and B is 0."""
    a, b = factors(layer)
    start = np.array(ops.convert_to_numpy(a))
    type(layer).load_own_variables(layer, store)
    if "lora_a" not in store:
        a.assign(start)
        return
    a.assign(store["lora_a"])
    b.assign(store["lora_b"])


def _is_in(variable: keras.Variable, variables: Any) -> bool:
    """By identity: variables compare value by value."""
    return any(variable is other for other in variables)
