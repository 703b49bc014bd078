"""A profile that adds nothing: its gate chooses a concept at each position, and a server counts which."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trimtab.vectors import AlphaRange, ConceptDictionary, Gate, Profile
from trimtab.vectors.manifest import Positions

from ..states.store import LayerStates
from .fine import Gating, build, checked, parts_of

__all__ = ["watching_profile"]


def watching_profile(
    name: str,
    layers: Sequence[tuple[LayerStates, ConceptDictionary]],
    *,
    background: Sequence[LayerStates | None] = (),
    gate: Gate | None = None,
    positions: Positions = "answer",
    alpha: AlphaRange | None = None,
    description: str = "",
    force: bool = False,
) -> Profile:
    """All vectors are zero. The manifest says which share of the positions each concept is expected to get.

    That is known of answers where there are background states, see `load_background`, and without them of a gate that
    decides once per answer, on states of the rule last-prompt. A server shows a drift only where it is known.

    layers, background, positions, alpha: as in `fine_profile`. force: only warn of a dictionary that was made from
    other states.

    Raises:
        SettingError: a dictionary of another model or layer, one that was made from other states, or one whose concepts
            are no centres.
    """
    gating = Gating(gate=gate or Gate(), background_concepts=0, force=force)
    layers = [(states, checked(states, dictionary, gating)) for states, dictionary in layers]
    rows = [np.zeros_like(dictionary.centroids) for _, dictionary in layers]
    meant = [np.zeros(len(states.values), np.bool_) for states, _ in layers]
    parts = parts_of(layers, rows, meant, background)
    said = description or "watches which concepts answers have, and adds nothing"
    return build(name, parts, (), (), gating, positions, alpha, said)
