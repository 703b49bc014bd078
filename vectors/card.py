"""The model card that is written beside a profile: the Hub's front matter, then what a reader asks first."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from .dose import largest_dose, said
from .manifest import adds_nothing
from .profile import Profile

_WHERE = {
    "answer": "the positions that predict the answer",
    "prompt": "the prompt",
    "all": "every position",
    "image": "the positions of images",
    "text": "the positions of the prompt's text",
}


def model_card(profile: Profile) -> str:
    """README.md of `profile`: what it does, to which model, how strongly, with what effect, and how to use it.

    It follows from the profile alone, so saving a loaded profile again gives the same card.
    """
    sections = [_front_matter(profile), f"# {profile.name}", *_what(profile), *_dose(profile), *_evaluation(profile)]
    return "\n\n".join([*sections, *_provenance(profile), *_use(profile)]) + "\n"


def touched_by(profile: Profile) -> Iterator[str]:
    """For each layer of a fine profile a sentence about the share of its positions that is steered, known or not."""
    manifest = profile.manifest
    if manifest.kind != "fine":
        return
    touched, unmeant = manifest.touched or {}, manifest.unmeant or {}
    for layer in profile.layers:
        if layer in touched:
            others = f"; of those that it is not meant for, {unmeant[layer]:.1%}" if layer in unmeant else ""
            yield f"At layer {layer} it is expected to steer {touched[layer]:.1%} of the positions of answers{others}."
        else:
            yield f"At layer {layer} it was not measured what share of {_WHERE[manifest.positions]} it will steer."
    if touched and manifest.positions == "all":
        yield "It was not measured what share of the prompt it will steer."


def _front_matter(profile: Profile) -> str:
    lines = ["---", "library_name: trimtab", "tags:", "- trimtab", "- activation-steering", "- steering-vectors"]
    if model_id := profile.manifest.provenance.model_id:
        lines.append(f"base_model: {json.dumps(model_id)}")  # JSON strings are YAML strings, whatever they hold
    return "\n".join([*lines, "---"])


def _what(profile: Profile) -> Iterator[str]:
    manifest = profile.manifest
    if manifest.description:
        yield manifest.description
    layers = ", ".join(str(layer) for layer in profile.layers)
    if adds_nothing(manifest):
        how = f"adds nothing: a server counts which of up to {profile.largest_k} concepts is the nearest"
    elif manifest.kind == "coarse":
        how = "adds one vector"
    else:
        how = f"adds the vector of the nearest concept (up to {profile.largest_k} concepts)"
    yield f"A {manifest.kind} steering profile: after decoder layer {layers} it {how} at {_WHERE[manifest.positions]}."
    gate = manifest.gate
    if gate is not None:
        if gate.max_distance is not None:
            yield f"States farther than {gate.max_distance:g} ({gate.metric}) from every concept are left alone."
        if gate.limits is not None:
            own = sum(limit is not None for limits in gate.limits.values() for limit in limits)
            yield f"{own} concepts have a distance limit of their own in its place."
        if gate.scope == "sequence":
            yield "The concept is chosen once, at the last prompt position, and kept for the whole answer."
    yield from touched_by(profile)
    model = manifest.base_model
    yield _table(
        ("base model", ""),
        [
            ("architecture", model.architecture),
            ("hidden size", model.hidden_size),
            ("decoder layers", model.num_layers),
            ("weights", model.fingerprint or "not recorded; any model of this shape is accepted"),
            ("profile digest", profile.digest),
            *(("ported from", f"{old.architecture}, {old.fingerprint}") for old in manifest.ported_from or ()),
        ],
    )


def _dose(profile: Profile) -> Iterator[str]:
    alpha = profile.manifest.alpha
    yield "## Dose"
    yield (
        f"`alpha` is {alpha.default:g} unless a request says otherwise, and may be {alpha.min:g} to {alpha.max:g}. The "
        "relative dose α‖v‖/‖h‖ compares what is added with what is there."
    )
    yield f"At the default, {said(largest_dose(profile))}."
    rows = []
    for layer in profile.layers:
        norms = profile.manifest.norms[layer]
        doses = [norms.dose(strength) for strength in (alpha.default, alpha.largest)]
        figures = (norms.vector, norms.hidden, *doses)
        rows.append((layer, *("not measured" if figure is None else f"{figure:.4g}" for figure in figures)))
    yield _table(("layer", "‖v‖", "typical ‖h‖", "dose at the default", "largest dose"), rows)


def _evaluation(profile: Profile) -> Iterator[str]:
    yield "## Evaluation"
    figures = list(_flat(profile.manifest.provenance.evaluation))
    if figures:
        yield _table(("figure", "value"), figures)
    else:
        yield "None is recorded. Measure the effect, and what else changes, before you serve it."


def _provenance(profile: Profile) -> Iterator[str]:
    fields = profile.manifest.provenance.model_dump(mode="json", exclude={"evaluation"})
    known = {name.replace("_", " "): value for name, value in fields.items() if value not in (None, {})}
    if known:
        yield "## Made from"
        yield _table(("", ""), _flat(known))


def _use(profile: Profile) -> Iterator[str]:
    manifest = profile.manifest
    request = json.dumps({"steering": {"profile": profile.name, "alpha": manifest.alpha.default}})
    yield "## Use"
    yield f"Put this folder, named `{profile.name}`, into the profile folder of a trimtab server and ask for it:"
    yield f"```json\n{request}\n```"
    yield "The field stands beside `messages` or `prompt`. To look at the profile in Python:"
    yield (
        "```python\nfrom pathlib import Path\n\nfrom trimtab.vectors import load_profile\n\n"
        f'profile = load_profile(Path("{profile.name}"))\n```'
    )


def _flat(values: Mapping[str, object], prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in sorted(values):
        value = values[name]
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name} / ")
        else:
            yield prefix + name, f"{value:.4g}" if isinstance(value, float) else value


def _table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
