"""What a folder of ours holds, as tables for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from rich.console import Group

from trimtab.vectors import ConceptDictionary, ModelIdentity, Profile, load_profile
from trimtab.vectors.card import touched_by
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.manifest import Provenance
from trimtab.vectors.profile import FineLayer
from trimtab.vectors.states import SkippedSample, StatesManifest

from ..errors import DataError
from ..findings import Finding, holds_findings, read_findings
from ..states.parts import MANIFEST, holds_states
from ..states.store import verify_states
from .console import Plain, figure

Findings = dict[str, Finding]
Shown = Profile | ConceptDictionary | StatesManifest | Findings

_KINDS = {"profile.json": "profile", "concepts.json": "dictionary", MANIFEST: "folder of states"}
_MAX_LABELS = 12


def load_any(folder: Path) -> Shown:
    """The profile, dictionary, manifest of states or findings in a folder, with all its checks made.

    Raises:
        DataError: the folder holds none of the four.
        ProfileError, DataError: it does, and is broken.
    """
    if (folder / "profile.json").exists():
        return load_profile(folder)
    if (folder / "concepts.json").exists():
        return ConceptDictionary.load(folder)
    if holds_states(folder):
        return verify_states(folder)
    if holds_findings(folder):
        return read_findings(folder)
    raise DataError(
        f"{folder}: is no profile, dictionary, folder of states or of findings; "
        f"looked for {', '.join(_KINDS)}, findings"
    )


def kind_of(found: Shown) -> str:
    """A few words for what was found."""
    if isinstance(found, Profile):
        return f"{found.manifest.kind} profile {found.name!r}"
    if isinstance(found, ConceptDictionary):
        return f"dictionary of {len(found.labels)} concepts"
    if isinstance(found, dict):
        return f"run of {len(found)} findings"
    return f"{found.rows:,} states of {found.done:,} of {found.request.samples:,} samples"


def model_of(found: Shown) -> ModelIdentity:
    """The model that it was made for.

    Raises:
        DataError: findings speak of no one model.
    """
    if isinstance(found, dict):
        raise DataError("a run of findings is not made for one model; leave --model out")
    if isinstance(found, Profile):
        return found.manifest.base_model
    return found.model if isinstance(found, ConceptDictionary) else found.request.model


def template_of(found: Shown) -> str | None:
    """The digest of the chat template that it was made with; None where that is not recorded."""
    if isinstance(found, dict):
        return None
    if isinstance(found, Profile):
        return found.manifest.provenance.chat_template
    return found.provenance.chat_template if isinstance(found, ConceptDictionary) else found.request.chat_template


def by_reason(skipped: Iterable[SkippedSample]) -> dict[str, list[str]]:
    """Sample ids by the reason for which they were skipped."""
    reasons: dict[str, list[str]] = {}
    for skip in skipped:
        reasons.setdefault(skip.reason, []).append(skip.id)
    return reasons


def described(found: Shown) -> Group:
    """Tables: facts about the whole, then one row for each layer, concept or reason."""
    if isinstance(found, Profile):
        return Group(*_profile(found))
    if isinstance(found, dict):
        return Group(_findings(found))
    return Group(*(_dictionary(found) if isinstance(found, ConceptDictionary) else _manifest(found)))


def _profile(profile: Profile) -> list[Plain]:
    manifest = profile.manifest
    alpha = manifest.alpha
    facts = {
        "profile": f"{profile.name} ({manifest.kind})",
        "description": manifest.description,
        "alpha": f"{alpha.default:g} by default, {alpha.min:g} to {alpha.max:g}",
        "positions": manifest.positions,
        "gate": _gate(profile),
        "dose": said(largest_dose(profile)),
        "touches": " ".join(touched_by(profile)),
        "digest": profile.digest,
        **_model(manifest.base_model),
        "ported from": ", ".join(f"{old.architecture} {old.fingerprint}" for old in manifest.ported_from or ()),
        **_origin(manifest.provenance),
    }
    layers = Plain("layer", "K", "steered", "‖v‖", "‖h‖", "dose α‖v‖/‖h‖", title="layers")
    for layer, tensors in profile.tensors.items():
        norms = manifest.norms[layer]
        steered = int(tensors.vectors.any(axis=1).sum()) if isinstance(tensors, FineLayer) else 1
        dose = norms.dose(alpha.default)
        layers.add_row(
            str(layer),
            str(tensors.rows),
            str(steered),
            figure(norms.vector),
            "unknown" if norms.hidden is None else figure(norms.hidden),
            "unknown" if dose is None else f"{dose:.2f} (at most {norms.dose(alpha.largest) or 0:.2f})",
        )
    return [_facts(facts), layers]


def _gate(profile: Profile) -> str:
    gate = profile.manifest.gate
    if gate is None:
        return ""
    limit = "" if gate.max_distance is None else f", within {gate.metric} distance {figure(gate.max_distance)}"
    own = sum(limit is not None for limits in (gate.limits or {}).values() for limit in limits)
    concepts = f", {own} concepts with a limit of their own" if own else ""
    return f"nearest concept, for each {gate.scope}{limit}{concepts}"


def _dictionary(dictionary: ConceptDictionary) -> list[Plain]:
    facts = {
        "dictionary": f"{dictionary.method}, K = {len(dictionary.labels)}, {len(set(dictionary.labels))} words",
        "layer": str(dictionary.layer),
        **_model(dictionary.model),
        **_origin(dictionary.provenance),
    }
    concepts = Plain("concept", "label", "states", "purity", title="concepts")
    for i, label in enumerate(dictionary.labels):
        concepts.add_row(str(i), label or "–", f"{dictionary.counts[i]:,}", f"{dictionary.purity[i]:.0%}")
    return [_facts(facts), concepts]


def _manifest(manifest: StatesManifest) -> list[Plain]:
    request = manifest.request
    facts = {
        "states": f"{manifest.rows:,} of {manifest.done:,} samples" + ("" if manifest.complete else ", unfinished"),
        "background states": f"{manifest.background:,}" if manifest.background else "",
        "samples": f"{request.samples:,}",
        "layers": ", ".join(map(str, request.layers)),
        "labels": f"{len(manifest.labels):,}",
        "shards": str(len(manifest.shards)),
        "part": "" if request.part is None else "{} of {}".format(*request.part),
        "drawn": "" if request.draw is None else f"{request.draw:,} samples, seed {request.seed or 0}",
        "most per label": "" if request.most_per_label is None else f"{request.most_per_label:,}",
        **_model(request.model),
        "rule": request.rule,
        "data": request.data,
        "versions": _listed(manifest.versions),
    }
    skipped = Plain("skipped", "samples", "the first", title="skipped samples")
    for reason, ids in by_reason(manifest.skipped).items():
        skipped.add_row(reason, f"{len(ids):,}", ids[0])
    return [_facts(facts), *([skipped] if skipped.row_count else [])]


def _findings(findings: Findings) -> Plain:
    table = Plain("file", "kind", "title", title="findings")
    for name, found in findings.items():
        table.add_row(f"{name}.json", found.kind, found.title)
    return table


def _facts(facts: dict[str, str]) -> Plain:
    table = Plain(show_header=False, box=None)
    for name, value in facts.items():
        if value:
            table.add_row(name, value)
    return table


def _model(identity: ModelIdentity) -> dict[str, str]:
    return {
        "model": f"{identity.architecture}, {identity.num_layers} layers × {identity.hidden_size}",
        "weights": identity.fingerprint or "unknown",
    }


def _origin(provenance: Provenance) -> dict[str, str]:
    frequent = Counter(provenance.samples).most_common()
    samples = ", ".join(f"{word or '–'} {count:,}" for word, count in frequent[:_MAX_LABELS])
    return {
        "rule": provenance.rule or "",
        "method": provenance.method or "",
        "seed": "" if provenance.seed is None else str(provenance.seed),
        "samples": samples + (f" and {len(frequent) - _MAX_LABELS} more" if len(frequent) > _MAX_LABELS else ""),
        "data": provenance.dataset_digest or "",
        "chat template": provenance.chat_template or "",
        "source": provenance.source or "",
        "versions": _listed(provenance.versions),
        "evaluation": _listed(provenance.evaluation),
    }


def _listed(values: object) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) if isinstance(values, dict) else ""
