"""Finds the values that networks expect as inputs, and who gets others.

Tested by `tests/analysis/test_input_requirements.py` and
`tests/analysis/test_range_inference.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import keras
import numpy as np

from keras_cascade.analysis.range_inference import NORMALISATIONS, consumers_of
from keras_cascade.analysis.report import Finding, ValueStatistics
from keras_cascade.analysis.trained_statistics import (
    is_untrained,
    trained_moments,
)
from keras_cascade.analysis.value_ranges import (
    PIXELS,
    UNKNOWN,
    ValueRange,
    pixels_for,
)
from keras_cascade.graph.flattening import FlatCall, FlatGraph, flatten
from keras_cascade.graph.graph import Reference
from keras_cascade.networks.applications import (
    APPLICATIONS,
    MODES,
    Recognised,
    recognise,
)
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.networks.preprocessing import MODE_SCALINGS
from keras_cascade.networks.presets import PREFIX
from keras_cascade.planning.inputs import CascadeInput, NetworkInput
from keras_cascade.planning.plan import Plan


@dataclass(frozen=True, eq=False)
class Requirement:
    """The values that a network needs at an input of the cascade.

    Attributes:
        network: The network's block.
        title: The block and the network's own name.
        values: The range that the network needs there.
        recognised: The Keras application that the network is, if it is one.
        is_prepared: Whether `preprocess` does something for the network.
    """

    network: str
    title: str
    values: ValueRange
    recognised: Recognised | None
    is_prepared: bool

    @property
    def fix(self) -> tuple[str, str] | None:
        """The entry of `preprocess` that would bring pixels to the range."""
        found = self.recognised
        if self.is_prepared or found is None or found.needs is None:
            return None
        return self.network, found.module


def required_range(
    flat: FlatGraph, reference: Reference, network: keras.Model
) -> ValueRange:
    """Returns the range that a network expects at an input, if layers show.

    A Keras application shows its preprocessing, a Rescaling shows that pixels
    are expected, and a BatchNormalization or Normalization the statistics it
    was trained on.

    Args:
        flat: The network's graph.
        reference: The input.
        network: The network itself.
    """
    found = recognise(network)
    if found is not None:
        return _application_range(found)
    expected = map(_expected_by, consumers_of(flat, reference))
    return next((x for x in expected if x is not None), UNKNOWN)


def with_preprocess(
    plan: Plan, preprocess: object, given: Mapping[str, object]
) -> Plan:
    """Returns the plan with its preprocessing, without a Python warning.

    Building warns of an application that was passed as an object under
    "auto". Such a network gets no preprocessing here either; the report says
    so instead.

    Args:
        plan: A plan that was made with `preprocess=None`.
        preprocess: The user's argument.
        given: The networks as the user passed them, by their blocks.

    Raises:
        ValueError: If a name belongs to no network or module, or a network
            cannot have the preprocessing that was asked for.
        TypeError: If something is of a kind that is not understood.
    """
    readers = list(dict.fromkeys(x.network for x in _network_inputs(plan)))
    silent = {
        role: None
        for role in readers
        if _choice(preprocess, role) == "auto"
        and not _is_named(given[role])
        and recognise(plan.networks[role]) is not None
    }
    choices = preprocess
    if silent and isinstance(preprocess, Mapping):
        choices = {**preprocess, **silent}
    elif silent:
        choices = {**dict.fromkeys(readers, preprocess), **silent}
    found = resolve_preprocess(choices, readers, given, plan.networks)
    return replace(plan, spec=plan.spec.with_preprocess(found))


def preprocess_findings(plan: Plan, preprocess: object) -> list[Finding]:
    """Returns findings for networks that get other values than in training.

    Args:
        plan: The plan.
        preprocess: The user's argument.
    """
    found = [
        _disagreement(one, _requirements(plan, one)) for one in plan.inputs
    ]
    findings = [finding for finding in found if finding is not None]
    named = {name for finding in findings for name in finding.where}
    for fed in _network_inputs(plan):
        requirement = _requirement(plan, fed)
        choice = _choice(preprocess, fed.network)
        fix = requirement.fix
        if fix and choice == "auto" and fed.network not in named:
            findings.append(_undecided(requirement, *fix))
        findings += _other_module(requirement, choice)
    return list(dict.fromkeys(findings))


def data_findings(
    plan: Plan, measured: Mapping[str, ValueStatistics]
) -> list[Finding]:
    """Returns findings for inputs whose data networks were not trained on.

    Args:
        plan: The plan.
        measured: The statistics of the data, by the inputs' names.
    """
    return [
        _off_scale(one.name, requirement, measured[one.name])
        for one in plan.inputs
        if one.name in measured
        for requirement in _requirements(plan, one)
        if _is_off_scale(requirement.values, measured[one.name])
    ]


def _application_range(found: Recognised) -> ValueRange:
    if found.needs is None:
        return pixels_for(found.module)
    mode = MODE_SCALINGS[found.needs]
    return replace(
        PIXELS.rescaled(mode.scale, mode.offset),
        sums_to_one=False,
        source=f"{mode.text}, for {found.module}",
    )


def _expected_by(call: FlatCall) -> ValueRange | None:
    operation = call.operation
    if isinstance(operation, keras.layers.Rescaling):
        # 1 / 255, 1 / 127.5 and their like make pixels small.
        if np.max(np.abs(np.asarray(operation.scale))) <= 1 / 50:
            return pixels_for(call.name)
        return ValueRange(source=f"rescaled by {call.name}")
    moments = trained_moments(operation)
    if moments is not None:
        return _range_of_moments(call.name, *moments)
    if isinstance(operation, NORMALISATIONS):
        return ValueRange(source=f"normalised first, by {call.name}")
    return None


def _range_of_moments(
    name: str, mean: np.ndarray, variance: np.ndarray
) -> ValueRange:
    # No value in [0, 1] varies by more than 1/4 (Popoviciu): with other
    # moments, the layer was not trained on probabilities.
    plausible = bool(
        np.all((mean >= 0) & (mean <= 1)) and np.all(variance <= 0.25)
    )
    deviation = np.sqrt(variance)
    centred = float(np.median(np.abs(mean) / np.maximum(deviation, 1e-12)))
    state = ", never trained" if is_untrained(mean, variance) else ""
    return ValueRange(
        sums_to_one=None if plausible else False,
        standardised=centred < 0.5 and 0.5 <= np.median(deviation) <= 2,
        source=f"{name}{state}",
    )


def _network_inputs(plan: Plan) -> list[NetworkInput]:
    return [fed for one in plan.inputs for fed in one.feeds]


def _choice(preprocess: object, role: str) -> str | None:
    """Returns the entry of `preprocess` for a network, if it is a name."""
    if isinstance(preprocess, Mapping):
        preprocess = preprocess.get(role, "auto")
    return preprocess if isinstance(preprocess, str) else None


def _is_named(source: object) -> bool:
    """Whether "auto" finds the preprocessing by the name that was passed."""
    return isinstance(source, str) and (
        source in APPLICATIONS or source.startswith(PREFIX)
    )


def _requirements(plan: Plan, one: CascadeInput) -> list[Requirement]:
    return [_requirement(plan, fed) for fed in one.feeds]


def _requirement(plan: Plan, fed: NetworkInput) -> Requirement:
    network = plan.networks[fed.network]
    chosen = plan.spec.preprocess.get(fed.network)
    found = recognise(network)
    values = UNKNOWN
    if chosen is not None:
        values = pixels_for(chosen.name)
    elif found is not None:
        values = _application_range(found)
    elif len(fed.tensor.shape) > 2:
        graph = plan.graphs[fed.network]
        flat = flatten(graph)
        names = [graph.sources[id(x)][0].name for x in graph.inputs]
        reference = flat.inputs[names.index(fed.name)]
        values = required_range(flat, reference, network)
    title = f"{fed.network} '{network.name}'"
    return Requirement(fed.network, title, values, found, chosen is not None)


def _disagreement(
    one: CascadeInput, requirements: Sequence[Requirement]
) -> Finding | None:
    known = [x for x in requirements if x.values.is_bounded]
    if len({(x.values.low, x.values.high) for x in known}) < 2:
        return None
    wanted = "; ".join(f"{x.title} {x.values}" for x in known)
    fixes = [x.fix for x in known if x.fix is not None]
    entries = ", ".join(f"'{network}': '{module}'" for network, module in fixes)
    advice = (
        f"Pass preprocess={{{entries}}}, and feed pixels in [0, 255]: each "
        "then gets the values it was trained on."
        if entries
        else "Give them inputs of their own, such as "
        f"inputs={{'{known[-1].network}': 'other'}}, or a preprocess each."
    )
    return Finding(
        "warning",
        tuple(x.network for x in known),
        f"They share the input '{one.name}', and need different values: "
        f"{wanted}.",
        advice,
    )


def _undecided(requirement: Requirement, network: str, module: str) -> Finding:
    return Finding(
        "warning",
        (network,),
        f"{requirement.title} is a network of keras.applications.{module}, "
        f"which expects values {requirement.values}; its input is not "
        "preprocessed.",
        f"Pass preprocess={{'{network}': '{module}'}} to feed the cascade "
        f"pixels in [0, 255], or preprocess={{'{network}': None}} if you feed "
        "values like those that the network was trained on.",
    )


def _other_module(need: Requirement, choice: str | None) -> list[Finding]:
    """Returns a finding if another module's preprocessing was chosen."""
    found = need.recognised
    if found is None or choice not in MODES or choice == found.module:
        return []
    if MODES[choice] == found.needs:
        return []
    return [
        Finding(
            "warning",
            (need.network,),
            f"{need.title} gets the preprocessing of '{choice}', and is a "
            f"network of keras.applications.{found.module}, which expects "
            f"values {_application_range(found)}.",
            f"Pass preprocess={{'{need.network}': '{found.module}'}}.",
        )
    ]


def _is_off_scale(values: ValueRange, measured: ValueStatistics) -> bool:
    """Whether data leave a range by a tenth, or fill less than a fiftieth."""
    if not values.is_bounded:
        return False
    width = values.high - values.low
    outside = (
        measured.maximum > values.high + width / 10
        or measured.minimum < values.low - width / 10
    )
    return outside or measured.maximum - measured.minimum < width / 50


def _off_scale(
    name: str, need: Requirement, measured: ValueStatistics
) -> Finding:
    advice = "Rescale the data to that range."
    if need.fix and measured.minimum >= 0 and measured.maximum <= 255:
        network, module = need.fix
        advice = (
            f"If these are pixels, preprocess={{'{network}': '{module}'}} does "
            "that."
        )
    elif need.values.source.startswith("pixels") and measured.maximum <= 1:
        advice = "Feed pixels in [0, 255], not scaled ones."
    return Finding(
        "warning",
        (name,),
        f"The data lie in [{measured.minimum:.4g}, {measured.maximum:.4g}], "
        f"and {need.title} expects values {need.values}.",
        advice,
    )
