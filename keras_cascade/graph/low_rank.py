"""Enables, stores and merges low-rank updates of single layers.

Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models" (2021): a
kernel W stays as it is, and the product of two small matrices is trained:
W + alpha / rank * A B. Keras's layers compute it; left alone they write the
merged kernel into a file, load A = B = 0, from where nothing trains, and let
W train again when their flag is set.
"""

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.stored_values import read_value

# The number of a layer inside a composite layer, to its rank and alpha.
Ranks = Mapping[str, list]


def takes_low_rank(layer: keras.Layer) -> bool:
    """Whether Keras has low-rank updates for this very layer."""
    # KerasHub's networks have an enable_lora() too, for layers inside them.
    return hasattr(layer, "enable_lora") and hasattr(layer, "lora_enabled")


def has_low_rank(layer: keras.Layer) -> bool:
    """Whether this very layer has low-rank updates."""
    return bool(getattr(layer, "lora_enabled", False))


def low_rank_layers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layers with low-rank updates, of a layer and those inside."""
    return filter(has_low_rank, compat.sublayers(layer))


def constraint(layer: keras.Layer) -> object:
    """Returns the constraint on W, with which Keras refuses updates."""
    return getattr(layer, f"{_kernel_name(layer)}_constraint")


def factors(layer: keras.Layer) -> tuple[keras.Variable, keras.Variable]:
    """Returns A and B of a layer that has them."""
    name = _kernel_name(layer)
    return getattr(layer, f"lora_{name}_a"), getattr(layer, f"lora_{name}_b")


def base(layer: keras.Layer) -> keras.Variable:
    """Returns W, the variable that stays as it is."""
    with compat.low_rank_hidden(layer):
        return getattr(layer, _kernel_name(layer))


def enable(layer: Any, rank: int, alpha: float) -> None:
    """Gives a built layer a low-rank update, which changes nothing yet.

    Only A and B train from then on, whatever the layer's flag is set to. The
    layer writes W, A and B into files, and loads them.

    Args:
        layer: A layer that takes one. If Keras has given it one already, it
            keeps its A and B.
        rank: The width of A and the height of B.
        alpha: The factor of A B, times the rank.
    """
    if not has_low_rank(layer):
        layer.enable_lora(rank, lora_alpha=alpha)
        parent, _, _ = base(layer).path.rpartition("/")
        for factor in factors(layer):
            compat.set_variable_path(factor, f"{parent}/{factor.name}")
    # Dense and Embedding made from a config take an alpha equal to the rank.
    layer.lora_alpha = alpha
    compat.never_train(layer, _without(layer.variables, factors(layer)))
    compat.save_and_load_with(layer, _save, _load)


def set_flag(layer: keras.Layer, flag: bool) -> None:
    """Sets the `trainable` flag of a layer and of the layers inside it.

    In a layer with low-rank updates, only these are unfrozen.
    """
    for inner in compat.sublayers(layer):
        # On TensorFlow a flag that is set to its old value does not spread.
        inner.trainable = flag
    if flag and any(low_rank_layers(layer)):
        freeze_rest(layer)


def freeze_rest(layer: keras.Layer) -> None:
    """Freezes all of a layer but its low-rank updates."""
    for inner in compat.sublayers(layer):
        if not any(low_rank_layers(inner)):
            inner.trainable = False
    for variable in plain_variables(layer):
        variable.trainable = False


def read_ranks(layer: keras.Layer) -> dict[str, list]:
    """Returns the ranks and alphas of a layer and the layers inside it."""
    inside: Iterable[Any] = compat.sublayers(layer)
    return {
        str(number): [inner.lora_rank, inner.lora_alpha]
        for number, inner in enumerate(inside)
        if has_low_rank(inner)
    }


def restore_ranks(layer: keras.Layer, ranks: Ranks) -> None:
    """Enables the updates that `read_ranks` read, on a layer without them."""
    for number, inner in enumerate(list(compat.sublayers(layer))):
        if str(number) in ranks:
            enable(inner, *ranks[str(number)])


def same_ranks(layer: Any, other: Any) -> bool:
    """Whether A and B of one layer mean the same in another one."""
    return other is not None and (
        (layer.lora_rank, layer.lora_alpha)
        == (other.lora_rank, other.lora_alpha)
    )


def merged(layer: Any) -> Any:
    """Returns W with the update added, as a tensor of W's dtype."""
    a, b = factors(layer)
    scale = layer.lora_alpha / layer.lora_rank
    kernel = base(layer)
    return ops.cast(ops.add(kernel, scale * ops.matmul(a, b)), kernel.dtype)


def merge_into(source: keras.Layer, target: keras.Layer) -> None:
    """Gives a layer without low-rank updates the merged weights of another.

    Raises:
        ValueError: If the source is quantised: the merged kernel would be
            rounded again, and the copy would answer otherwise.
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
    values["0"] = ops.convert_to_numpy(merged(source))
    type(target).load_own_variables(target, values)


def plain_variables(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the variables of a layer without its low-rank updates."""
    updates = [x for inner in low_rank_layers(layer) for x in factors(inner)]
    return _without(layer.variables, updates)


def _kernel_name(layer: keras.Layer) -> str:
    """Returns Keras's name for W in this layer."""
    is_table = isinstance(layer, keras.layers.Embedding)
    return "embeddings" if is_table else "kernel"


def _save(layer: keras.Layer, store: MutableMapping[str, Any]) -> None:
    """Writes A and B, and W where Keras writes the merged kernel."""
    with compat.low_rank_hidden(layer):
        type(layer).save_own_variables(layer, store)
    store["lora_a"], store["lora_b"] = factors(layer)


def _load(layer: keras.Layer, store: Mapping[str, Any]) -> None:
    """Loads W, A and B; from a file without these, A stays and B is 0."""
    a, b = factors(layer)
    keys, named = list(store.keys()), {"lora_a": a, "lora_b": b}
    values: list[np.ndarray] = []
    # Keras tries other parts of the file after an error, and shows the last
    # one: it is the same for all.
    owner = (
        f"Layer '{layer.name}' with low-rank updates of the shapes "
        f"{tuple(a.shape)} and {tuple(b.shape)}"
    )
    if "0" not in keys:
        raise ValueError(f"{owner}: the file has no kernel, or no updates so.")
    if any(name in keys for name in named):
        values = [read_value(store, k, v, owner) for k, v in named.items()]
    start = np.array(ops.convert_to_numpy(a))
    # Keras's own loading sets A and B to 0.
    type(layer).load_own_variables(layer, store)
    for factor, value in zip((a, b), values or [start], strict=False):
        factor.assign(value)


def _without(
    variables: Iterable[keras.Variable], others: Iterable[keras.Variable]
) -> list[keras.Variable]:
    # By their ids: == compares the values of variables.
    ids = set(map(id, others))
    return [variable for variable in variables if id(variable) not in ids]
