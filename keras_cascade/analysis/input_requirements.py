"""Finds the networks of a plan that get other values than they expect."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain

from keras_cascade.analysis.report import Finding, ValueStatistics
from keras_cascade.graph.flattening import flatten
from keras_cascade.networks.applications import (
    APPLICATIONS,
    MODES,
    recognise,
)
from keras_cascade.networks.preprocess_argument import resolve_preprocess
from keras_cascade.networks.presets import PREFIX
from keras_cascade.planning.inputs import NetworkInput
from keras_cascade.planning.plan import Plan
from keras_cascade.values.requirements import (
    Requirement,
    application_range,
    required_range,
)
from keras_cascade.values.value_ranges import UNKNOWN


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
    if any(x.is_downstream for x in plan.targets.values()):
        readers.append("downstream")
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
        other = _other_module(one, choice)
        findings += other
        if one.conflict and not other:
            findings.append(Finding("warning", (one.network,), *one.conflict))
    return list(dict.fromkeys(findings))


def data_findings(
    plan: Plan, measured: Mapping[str, ValueStatistics]
) -> list[Finding]:
    """Returns findings for inputs whose data are not as in training."""
    return [
        Finding("warning", (name,), *found)
        for name, several in _requirements(plan).items()
        for one in several
        if name in measured and (found := _off_scale(one, measured[name]))
    ]


def _off_scale(
    one: Requirement, measured: ValueStatistics
) -> tuple[str, str] | None:
    return one.off_scale(measured.minimum, measured.maximum)


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
    network, graph = plan.networks[fed.network], plan.graphs[fed.network]
    chosen = plan.spec.preprocess.get(fed.network)
    found, own = recognise(network), UNKNOWN
    if found is not None or len(fed.tensor.shape) > 2:
        flat = flatten(graph)
        names = [graph.sources[id(x)][0].name for x in graph.inputs]
        reference = flat.inputs[names.index(fed.name)].reference
        own = required_range(flat, reference, network)
    title = f"{fed.network} '{network.name}'"
    return Requirement(fed.network, title, own, chosen, found)


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
        f"{application_range(found)}."
    )
    advice = f"Pass preprocess={{'{one.network}': '{found.module}'}}."
    return [Finding("warning", (one.network,), what, advice)]
