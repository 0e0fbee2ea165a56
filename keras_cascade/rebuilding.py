"""Builds a cascade again with changes, and carries over what it learned."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade.build import build_cascade
from keras_cascade.cascade import Cascade
from keras_cascade.graph.operations import own
from keras_cascade.spec import CascadeSpec


def rebuild(cascade: Cascade, changes: Mapping[str, Any]) -> Cascade:
    """A cascade of the same arguments with some changed.

    Args:
        cascade: The cascade; it stays as it is.
        changes: Arguments of `build_cascade` by name.

    Returns:
        The new cascade, with every weight of equal path and shape.

    Raises:
        TypeError: If there is no such argument.
    """
    _check_names(changes)
    new = build_cascade(**{**_arguments(cascade, changes), **changes})
    new.keep_network_info(cascade, changes)
    new.remember_started_anew(_carry_over(cascade, new, changes))
    if "loss" not in changes and cascade.compiled:
        _recompile(new, cascade.get_compile_config(), changes)
    return new


def _check_names(changes: Mapping[str, Any]) -> None:
    possible = list(inspect.signature(build_cascade).parameters)
    for name in changes:
        if name not in possible:
            raise TypeError(
                f"rebuild() has no argument '{name}'. Possible: "
                f"{', '.join(possible)}."
            )


def _arguments(cascade: Cascade, changes: Mapping[str, Any]) -> dict[str, Any]:
    spec = cascade.spec
    arguments = {
        "taps": spec.taps,
        "adapters": spec.adapters,
        "fusion": spec.fusion,
        "extra_inputs": _extra_inputs(spec),
        "head": _head(spec),
        "trainable": spec.trainable,
        "learning_rates": spec.learning_rates,
        "copy": not spec.shares,
        "name": cascade.name,
    }
    arguments["adapters"] = _adapters_for(
        spec,
        changes.get("taps", spec.taps),
        changes.get("extra_inputs", spec.extra_inputs) or {},
    )
    for block in ("upstream", "downstream"):
        if block in cascade.blocks and block not in changes:
            source = cascade.source(block)
            known = source is not None
            arguments[block] = source if known else cascade.blocks[block]
            if block == "upstream" and not known:
                # The block gives its taps by their names.
                arguments["taps"] = None
    return arguments


def _adapters_for(
    spec: CascadeSpec, taps: Any, extras: Mapping[str, Any]
) -> dict[str, Any]:
    """The adapters of what is still there; new taps get "auto"."""
    kept = set(taps if isinstance(taps, Mapping) else ()) | set(extras)
    return {n: choice for n, choice in spec.adapters.items() if n in kept}


def _extra_inputs(spec: CascadeSpec) -> dict[str, keras.KerasTensor]:
    return {name: extra.tensor for name, extra in spec.extra_inputs.items()}


def _head(spec: CascadeSpec) -> Any:
    if spec.head is None or list(spec.head) != [""]:
        return spec.head
    return spec.head[""]


def _carry_over(
    old: Cascade, new: Cascade, changes: Mapping[str, Any]
) -> tuple[str, ...]:
    """Copies weights of equal path and shape; gives the paths of the others.

    What came with an argument that was changed keeps the weights it came
    with.
    """
    brought = {b for b in ("upstream", "downstream") if b in changes}
    if "adapters" in changes:
        brought |= {
            f"adapters/{name}"
            for name, layer in new.spec.adapters.items()
            if getattr(layer, "built", False)
        }
    known = {variable.path: variable for variable in old.variables}
    anew = []
    for variable in new.variables:
        if any(variable.path.startswith(f"{path}/") for path in brought):
            continue
        match = known.get(variable.path)
        if match is not None and match.shape == variable.shape:
            variable.assign(own(match))
        else:
            anew.append(variable.path)
    return tuple(anew)


def _recompile(
    new: Cascade, config: dict[str, Any] | None, changes: Mapping[str, Any]
) -> None:
    arguments = keras.saving.deserialize_keras_object(config or {})
    arguments.pop("has_slots", None)
    for name in ("optimizer", "metrics", "learning_rates"):
        if name in changes:
            arguments[name] = changes[name]
    new.compile(**arguments)


Cascade.set_rebuilder(rebuild)
