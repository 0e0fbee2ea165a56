"""What networks need of the cascade's inputs, and where they disagree."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from keras_cascade.analysis.ranges import (
    PIXELS,
    UNKNOWN,
    Values,
    application_values,
    expected_at_input,
)
from keras_cascade.analysis.report import Finding, Measured
from keras_cascade.graph.flattening import flatten
from keras_cascade.networks.applications import (
    APPLICATIONS,
    MODES,
    Recognised,
    recognise,
)
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.networks.presets import PREFIX
from keras_cascade.planning.inputs import CascadeInput, NetworkInput
from keras_cascade.planning.plan import Plan


@dataclass(frozen=True, eq=False)
class Need:
    """What a network needs of an input of the cascade.

    Attributes:
        network: The network's block.
        title: The block and the network's own name.
        values: What the cascade's input must hold for it.
        recognised: Which application it is, if it is one.
        is_prepared: Whether `preprocess` does something for it.
    """

    network: str
    title: str
    values: Values
    recognised: Recognised | None
    is_prepared: bool

    @property
    def fix(self) -> tuple[str, str] | None:
        """The network and the module that `preprocess` would name for it."""
        found = self.recognised
        if self.is_prepared or found is None or found.needs is None:
            return None
        return self.network, found.module


def with_preprocess(
    plan: Plan, preprocess: Any, given: Mapping[str, Any]
) -> Plan:
    """The plan with what `preprocess` means, without a Python warning.

    Building warns of an application that was passed as an object under
    "auto". Such a network gets nothing here as well; the report says so.

    Args:
        plan: A plan that was made with `preprocess=None`.
        preprocess: The user's argument.
        given: What the user passed as networks, by their blocks.

    Raises:
        ValueError: If a name belongs to no network or module, or a network
            cannot have what was asked for.
        TypeError: If something is of a kind that is not understood.
    """
    readers = list(dict.fromkeys(x.network for x in _feeds(plan)))
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


def input_needs(plan: Plan) -> dict[str, list[Need]]:
    """What each input of the cascade has to hold, for each network."""
    return {
        one.name: [_need(plan, fed) for fed in one.feeds] for one in plan.inputs
    }


def preprocess_findings(plan: Plan, preprocess: Any) -> list[Finding]:
    """Networks that are not fed what they were trained on.

    Args:
        plan: The plan.
        preprocess: The user's argument.
    """
    findings, named = [], set()
    for one in plan.inputs:
        needs = [_need(plan, fed) for fed in one.feeds]
        found = _disagreement(one, needs)
        if found is not None:
            findings.append(found)
            named |= set(found.where)
    for fed in _feeds(plan):
        need = _need(plan, fed)
        choice = _choice(preprocess, fed.network)
        if need.fix and choice == "auto" and fed.network not in named:
            findings.append(_undecided(need))
        findings += _another(need, choice)
    return list(dict.fromkeys(findings))


def data_findings(
    plan: Plan, measured: Mapping[str, Measured]
) -> list[Finding]:
    """Inputs whose data are not what the networks need.

    Args:
        plan: The plan.
        measured: What the data hold, by the inputs' names.
    """
    return [
        _off_scale(name, need, measured[name])
        for name, needs in input_needs(plan).items()
        for need in needs
        if name in measured and _is_off_scale(need.values, measured[name])
    ]


def _feeds(plan: Plan) -> list[NetworkInput]:
    return [fed for one in plan.inputs for fed in one.feeds]


def _choice(preprocess: Any, role: str) -> Any:
    if isinstance(preprocess, Mapping):
        preprocess = preprocess.get(role, "auto")
    return preprocess if isinstance(preprocess, str) else None


def _is_named(source: Any) -> bool:
    """Whether "auto" knows what to do from the name that was passed."""
    return isinstance(source, str) and (
        source in APPLICATIONS or source.startswith(PREFIX)
    )


def _need(plan: Plan, fed: NetworkInput) -> Need:
    network = plan.networks[fed.network]
    chosen = plan.spec.preprocess.get(fed.network)
    found = recognise(network)
    values = UNKNOWN
    if chosen is not None:
        source = f"pixels, for {chosen.name}"
        values = replace(PIXELS, source=source)
    elif found is not None:
        values = application_values(found.module, found.needs)
    elif len(fed.tensor.shape) > 2:
        graph = plan.graphs[fed.network]
        (tensor,) = [
            x for x in graph.inputs if graph.sources[id(x)][0].name == fed.name
        ]
        reference = graph.reference(tensor)
        values = expected_at_input(flatten(graph), reference, network)
    title = f"{fed.network} '{network.name}'"
    return Need(fed.network, title, values, found, chosen is not None)


def _disagreement(one: CascadeInput, needs: Sequence[Need]) -> Finding | None:
    known = [need for need in needs if need.values.is_bounded]
    if len({(need.values.low, need.values.high) for need in known}) < 2:
        return None
    wanted = "; ".join(f"{need.title} {need.values}" for need in known)
    fixes = [need.fix for need in known if need.fix is not None]
    asked = ", ".join(f"'{network}': '{module}'" for network, module in fixes)
    advice = (
        f"Pass preprocess={{{asked}}}, and feed pixels in [0, 255]: each then "
        "gets what it was trained on."
        if asked
        else f"Give them inputs of their own, such as inputs={{'"
        f"{known[-1].network}': 'other'}}, or a preprocess each."
    )
    return Finding(
        "warning",
        tuple(need.network for need in known),
        f"They share the input '{one.name}', and need different values: "
        f"{wanted}.",
        advice,
    )


def _undecided(need: Need) -> Finding:
    network, module = need.fix or ("", "")
    return Finding(
        "warning",
        (network,),
        f"{need.title} is a network of keras.applications.{module}, which "
        f"expects values {need.values}; nothing is done to its input.",
        f"Pass preprocess={{'{network}': '{module}'}} to feed the cascade "
        f"pixels in [0, 255], or preprocess={{'{network}': None}} if you feed "
        "it what the network was trained on.",
    )


def _another(need: Need, choice: Any) -> list[Finding]:
    """The preprocessing of another module than the network's own."""
    found = need.recognised
    if found is None or choice not in MODES or choice == found.module:
        return []
    if MODES[choice] == found.needs:
        return []
    advice = f"Pass preprocess={{'{need.network}': '{found.module}'}}."
    return [
        Finding(
            "warning",
            (need.network,),
            f"{need.title} gets the preprocessing of '{choice}', and is a "
            f"network of keras.applications.{found.module}, which expects "
            f"values {application_values(found.module, found.needs)}.",
            advice,
        )
    ]


def _is_off_scale(values: Values, measured: Measured) -> bool:
    """Whether data lie outside an interval, or fill next to nothing of it."""
    if not values.is_bounded:
        return False
    width = values.high - values.low
    outside = (
        measured.maximum > values.high + width / 10
        or measured.minimum < values.low - width / 10
    )
    return outside or measured.maximum - measured.minimum < width / 50


def _off_scale(name: str, need: Need, measured: Measured) -> Finding:
    fix = need.fix
    advice = "Bring the data there."
    if fix is not None and measured.minimum >= 0 and measured.maximum <= 255:
        advice = (
            f"If these are pixels, preprocess={{'{fix[0]}': '{fix[1]}'}} does "
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
