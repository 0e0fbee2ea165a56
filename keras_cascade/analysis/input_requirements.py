"""Finds the values that networks expect as inputs, and who gets others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

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
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step
from keras_cascade.networks.applications import (
    APPLICATIONS,
    MODES,
    Recognised,
    recognise,
)
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.networks.preprocessing import MODE_SCALINGS
from keras_cascade.networks.presets import PREFIX
from keras_cascade.planning.inputs import NetworkInput
from keras_cascade.planning.plan import Plan


@dataclass(frozen=True, eq=False)
class Requirement:
    """The values that a network needs at an input of the cascade.

    Attributes:
        network: The network's block.
        title: The block and the network's own name.
        values: The range that the network needs there.
        recognised: The Keras application that the network is, if it is one.
        fix: The network and module that `preprocess` could name to bring pixels
            to the range; None if there is no need.
    """

    network: str
    title: str
    values: ValueRange
    recognised: Recognised | None
    fix: tuple[str, str] | None


def required_range(
    flat: Program, reference: Reference, network: keras.Model
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
    """Returns a plan without preprocessing, with the user's preprocessing.

    Building warns of an application that was passed as an object under
    "auto", and adds nothing. A report has a finding in place of the warning.

    Raises:
        ValueError: If a name belongs to no network or module, or a network
            cannot have the preprocessing that was asked for.
        TypeError: If something is of a kind that is not understood.
    """
    fed = chain.from_iterable(one.feeds for one in plan.inputs)
    readers = list(dict.fromkeys(x.network for x in fed))
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
    """Returns findings for networks that get other values than in training."""
    requirements = _requirements(plan)
    findings = []
    for name, several in requirements.items():
        findings += _disagreement(name, several)
    named = {name for finding in findings for name in finding.where}
    for one in chain.from_iterable(requirements.values()):
        choice = _choice(preprocess, one.network)
        if one.fix and choice == "auto" and one.network not in named:
            findings.append(_undecided(one, *one.fix))
        findings += _other_module(one, choice)
    return list(dict.fromkeys(findings))


def data_findings(
    plan: Plan, measured: Mapping[str, ValueStatistics]
) -> list[Finding]:
    """Returns findings for inputs whose data are not as in training."""
    return [
        _off_scale(name, one, measured[name])
        for name, several in _requirements(plan).items()
        for one in several
        if name in measured and _is_off_scale(one.values, measured[name])
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


def _expected_by(call: Step) -> ValueRange | None:
    operation = call.operation
    if isinstance(operation, keras.layers.Rescaling):
        # 1 / 255, 1 / 127.5 and their like make pixels small.
        if np.max(np.abs(np.asarray(operation.scale))) <= 1 / 50:
            return pixels_for(call.label)
        return ValueRange(source=f"rescaled by {call.label}")
    moments = trained_moments(operation)
    if moments is not None:
        return _range_of_moments(call.label, *moments)
    if isinstance(operation, NORMALISATIONS):
        return ValueRange(source=f"normalised first, by {call.label}")
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


def _requirements(plan: Plan) -> dict[str, list[Requirement]]:
    """Returns the requirements for each input of the cascade."""
    return {
        one.name: [_requirement(plan, fed) for fed in one.feeds]
        for one in plan.inputs
    }


def _requirement(plan: Plan, fed: NetworkInput) -> Requirement:
    network = plan.networks[fed.network]
    chosen = plan.spec.preprocess.get(fed.network)
    found = recognise(network)
    values, fix = UNKNOWN, None
    if chosen is not None:
        values = pixels_for(chosen.name)
    elif found is not None:
        values = _application_range(found)
        fix = (fed.network, found.module) if found.needs else None
    elif len(fed.tensor.shape) > 2:
        graph = plan.graphs[fed.network]
        flat = flatten(graph)
        names = [graph.sources[id(x)][0].name for x in graph.inputs]
        reference = flat.inputs[names.index(fed.name)].reference
        values = required_range(flat, reference, network)
    title = f"{fed.network} '{network.name}'"
    return Requirement(fed.network, title, values, found, fix)


def _disagreement(
    name: str, requirements: Sequence[Requirement]
) -> list[Finding]:
    """Returns a finding if networks need different values of one input."""
    known = [x for x in requirements if x.values.is_bounded]
    if len({(x.values.low, x.values.high) for x in known}) < 2:
        return []
    wanted = "; ".join(f"{x.title} {x.values}" for x in known)
    fixes = ", ".join(f"'{x.fix[0]}': '{x.fix[1]}'" for x in known if x.fix)
    advice = (
        f"Pass preprocess={{{fixes}}}, and feed pixels in [0, 255]: each then "
        "gets the values it was trained on."
        if fixes
        else "Give them inputs of their own, such as "
        f"inputs={{'{known[-1].network}': 'other'}}, or a preprocess each."
    )
    what = (
        f"They share the input '{name}', and need different values: {wanted}."
    )
    return [Finding("warning", tuple(x.network for x in known), what, advice)]


def _undecided(one: Requirement, network: str, module: str) -> Finding:
    return Finding(
        "warning",
        (network,),
        f"{one.title} is a network of keras.applications.{module}, which "
        f"expects values {one.values}; its input is not preprocessed.",
        f"Pass preprocess={{'{network}': '{module}'}} to feed the cascade "
        f"pixels in [0, 255], or preprocess={{'{network}': None}} if you feed "
        "values like those that the network was trained on.",
    )


def _other_module(one: Requirement, choice: str | None) -> list[Finding]:
    """Returns a finding if another module's preprocessing was chosen."""
    found = one.recognised
    if found is None or choice not in MODES or choice == found.module:
        return []
    if MODES[choice] == found.needs:
        return []
    what = (
        f"{one.title} gets the preprocessing of '{choice}', and is a network "
        f"of keras.applications.{found.module}, which expects values "
        f"{_application_range(found)}."
    )
    advice = f"Pass preprocess={{'{one.network}': '{found.module}'}}."
    return [Finding("warning", (one.network,), what, advice)]


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
    name: str, one: Requirement, measured: ValueStatistics
) -> Finding:
    advice = "Rescale the data to that range."
    if one.fix and measured.minimum >= 0 and measured.maximum <= 255:
        network, module = one.fix
        advice = (
            f"If these are pixels, preprocess={{'{network}': '{module}'}} does "
            "that."
        )
    elif one.values.source.startswith("pixels") and measured.maximum <= 1:
        advice = "Feed pixels in [0, 255], not scaled ones."
    return Finding(
        "warning",
        (name,),
        f"The data lie in [{measured.minimum:.4g}, {measured.maximum:.4g}], "
        f"and {one.title} expects values {one.values}.",
        advice,
    )
