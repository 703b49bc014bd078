"""The profiles of a run: where each acts, how strongly, where its gate is open, and which concept goes to which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from trimtab.vectors import ConceptDictionary, Profile
from trimtab.vectors.dose import doses, largest_dose, said
from trimtab.vectors.profile import FineLayer

from .numbers import real, share
from .parts import Cell, Part, Section, Table, column, table

__all__ = ["profiles_section"]

_NOTE = (
    "Dose: α‖v‖ beside the typical length of a state, at the default α. Touched: the share of answers' positions that "
    "the gate is expected to steer, as measured when the profile was made; not meant: the same share of the positions "
    "that the steering is not meant for."
)
_NEAR = 1e-3
"""A vector leads to a concept when it ends no farther from it than this share of its own length."""


def profiles_section(profiles: Mapping[str, Profile], dictionaries: Mapping[str, ConceptDictionary]) -> Section | None:
    """All profiles in one table, then for each fine one what it does to each concept."""
    if not profiles:
        return None
    all_of = list(profiles.values())
    columns = {
        "profile": column([one.name for one in all_of]),
        "kind": column([one.manifest.kind for one in all_of]),
        "layers": column([", ".join(map(str, one.layers)) for one in all_of]),
        "positions": column([one.manifest.positions for one in all_of]),
        "α": column([_alpha(one) for one in all_of]),
        "dose": [_dose(one) for one in all_of],
        "gate": column([_gate(one) for one in all_of]),
        "touched": [Cell(_shares(one.manifest.touched)) for one in all_of],
        "touched, not meant": [Cell(_shares(one.manifest.unmeant)) for one in all_of],
        "what it is": column([one.manifest.description for one in all_of]),
    }
    goes = [_goes(one, dictionaries.values()) for one in all_of if one.manifest.kind == "fine"]
    parts: list[Part] = [table("Every profile", columns, folded=False), *goes]
    return Section("profiles", "Profiles", "Profiles", _NOTE, "profiles/", parts)


def _alpha(profile: Profile) -> str:
    alpha = profile.manifest.alpha
    return f"{alpha.default:g} ({alpha.min:g} to {alpha.max:g})"


def _dose(profile: Profile) -> Cell:
    """Each layer's, and in words the largest."""
    known, largest = doses(profile), largest_dose(profile)
    return Cell(", ".join(map(real, known.values())) or "unknown", largest, said(largest) if known else "")


def _gate(profile: Profile) -> str:
    """The gate in a few words; nothing for a coarse profile, which has none."""
    if profile.manifest.kind == "coarse":
        return "none"
    gate = profile.manifest.gate
    how = "nearest concept" + (", once per answer" if gate is not None and gate.scope == "sequence" else "")
    if gate is not None and gate.max_distance is not None:
        how += f", within {gate.metric} distance {gate.max_distance:.3g}"
    own = sum(limit is not None for limits in ((gate and gate.limits) or {}).values() for limit in limits)
    return how + (f", {own} limits per concept" if own else "")


def _shares(by_layer: Mapping[int, float] | None) -> str:
    return ", ".join(f"{share(part)} (layer {layer})" for layer, part in (by_layer or {}).items())


def _goes(profile: Profile, dictionaries: Iterable[ConceptDictionary]) -> Table:
    """One row for each concept that is steered."""
    rows: list[tuple[Cell, ...]] = []
    known = list(dictionaries)
    for layer, tensors in profile.tensors.items():
        if not isinstance(tensors, FineLayer):
            continue
        labels = _labels(tensors, layer, known)
        limits = ((profile.manifest.gate and profile.manifest.gate.limits) or {}).get(layer)
        hits = (profile.manifest.shares or {}).get(layer)
        for k in np.flatnonzero(tensors.vectors.any(axis=1)).tolist():
            target = _target(tensors, k)
            length = float(np.linalg.norm(tensors.vectors[k].astype(np.float64)))
            limit = limits[k] if limits is not None else None
            rows.append(
                (
                    Cell(labels[k]),
                    Cell(str(layer), layer),
                    Cell("" if target is None else labels[target]),
                    Cell(real(length), length),
                    Cell("" if limit is None else real(limit), limit),
                    Cell("" if hits is None else share(hits[k]), None if hits is None else hits[k]),
                )
            )
    names = ("concept", "layer", "goes to", "‖v‖", "limit", "share of states")
    return Table(f"{profile.name}: which concept goes to which ({len(rows)} steered)", names, rows, folded=True)


def _labels(tensors: FineLayer, layer: int, dictionaries: list[ConceptDictionary]) -> list[str]:
    """What each row is called in the run's dictionary that has it; its number where none does."""
    called: dict[bytes, str] = {}
    for one in dictionaries:
        if one.layer == layer:
            rows = zip(one.centroids, one.labels, strict=True)
            called |= {row.tobytes(): f"{label or '–'} ({k})" for k, (row, label) in enumerate(rows)}
    return [called.get(row.tobytes(), f"concept {k}") for k, row in enumerate(tensors.centroids)]


def _target(tensors: FineLayer, k: int) -> int | None:
    """The concept that row k's vector leads to from its own centre at α = 1, if it leads to one."""
    centroids, vector = tensors.centroids.astype(np.float64), tensors.vectors[k].astype(np.float64)
    apart = np.linalg.norm(centroids - (centroids[k] + vector), axis=1)
    nearest = int(apart.argmin())
    return nearest if nearest != k and apart[nearest] <= _NEAR * float(np.linalg.norm(vector)) else None
