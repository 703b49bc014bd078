"""The head of the page: what was studied, from what its folders say themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from trimtab.vectors import ModelIdentity

from ..findings import AboutFound
from .gathered import Gathered
from .parts import Facts, Lines, Part, Section

__all__ = ["facts_of", "heads"]

_SHORT = 19
"""Characters of a digest that are shown: "sha256:" and twelve more."""


def heads(name: str, found: Gathered) -> list[Section]:
    """What a study says of itself, then what the run's folders and commands say. The first title is the page's."""
    told = [
        Section("", "", one.title, one.note, f"{key}.json", [Facts(one.facts)])
        for key, one in found.findings.items()
        if isinstance(one, AboutFound)
    ]
    facts = facts_of(found)
    if not facts and not found.commands:
        return told
    parts: list[Part] = [Facts(facts)] if facts else []
    if found.commands:
        lines = [f"{one.date}  {one.command}" for one in found.commands]
        parts.append(Lines(f"{len(lines)} commands", lines))
    return [*told, Section("", "", "The run" if told else f"Run {name}", "", "", parts)]


def facts_of(found: Gathered) -> Mapping[str, str]:
    """What the folders and commands of a run say of the whole, by name; what none says is left out."""
    requests = [one.request for one in found.states.values()]
    origins = [one.manifest.provenance for one in found.profiles.values()]
    origins += [one.provenance for one in found.dictionaries.values()]
    models = [one.model for one in requests]
    models += [one.manifest.base_model for one in found.profiles.values()]
    models += [one.model for one in found.dictionaries.values()]
    # A prompt of None is the question alone, which is worth saying where states say it.
    prompts: list[str | None] = [one.prompt or "{question}" for one in requests]
    data: list[str | None] = [_data(one.data, one.samples) for one in requests]
    rules: list[str | None] = [one.rule for one in requests]
    dates = [one.date for one in found.commands]
    facts = {
        "model": _listed(map(_model, models)),
        "data": _listed(data or [one.dataset_digest for one in origins]),
        "prompt": _listed(prompts or [one.prompt for one in origins]),
        "rule": _listed(rules or [one.rule for one in origins]),
        "labels": _listed(one.labels for one in requests),
        "date": " to ".join(dict.fromkeys(date[:10] for date in (min(dates), max(dates)))) if dates else "",
        "made with": _listed(f"trimtab {one.trimtab}" for one in found.commands),
        "unfinished evaluations": ", ".join(found.unfinished),
    }
    return {name: value for name, value in facts.items() if value}


def _model(identity: ModelIdentity) -> str:
    weights = f", weights {identity.fingerprint[:_SHORT]}" if identity.fingerprint else ""
    return f"{identity.architecture}, {identity.num_layers} layers × {identity.hidden_size}{weights}"


def _data(digest: str, samples: int) -> str:
    return f"{samples:,} samples, {digest[:_SHORT]}"


def _listed(values: Iterable[str | None]) -> str:
    return " · ".join(dict.fromkeys(value for value in values if value))
