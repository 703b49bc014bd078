"""How far profiles can push back along what a server enforces.

At a layer of an enforced profile, e is one of its rows and ê its direction. What a request adds is at most

    Σᵢ Σₗ max(0, −αᵢ ⟨rowᵢₗ, ê⟩ · sign αₑ)

along −e, where rowᵢₗ is the row of profile i at layer l that points the most against e. The sum runs over all layers of
a profile, not over that of e alone: the stream is a sum over its layers, so a vector that is added before or after e
takes away from it as well. Divided by |αₑ| ‖e‖, it is the share of the enforced addition that the request can undo.
It is a bound: the row that the gate takes, and the positions of the profile, can only make it less.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from trimtab.vectors import Profile
from trimtab.vectors.layers import Layer

__all__ = ["prepare", "share_undone"]

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Reach:
    """What one profile adds along each row e of an enforced one, both at strength 1, as a share of ‖e‖: float64 [R],
    from `low` (0 at most) to `high` (0 at least)."""

    low: _Float64
    high: _Float64


# Kept as long as both profiles are served.
_REACHES: WeakKeyDictionary[Profile, WeakKeyDictionary[Profile, _Reach]] = WeakKeyDictionary()


def prepare(profiles: Sequence[Profile], enforced: Sequence[Profile]) -> None:
    """Work out now what `share_undone` needs, so that no request waits for it."""
    for one in profiles:
        for against in enforced:
            _reach(one, against)


def share_undone(own: Sequence[tuple[Profile, float]], enforced: Profile, alpha: float) -> float:
    """The largest share of an enforced profile's addition that other profiles can undo, over its layers and rows.

    own: profiles with their strengths. alpha: the enforced strength.
    """
    if alpha == 0:  # the default of a version that has become active since: there is nothing to undo
        return 0.0
    against: Any = 0.0
    for profile, strength in own:
        reach, signed = _reach(profile, enforced), strength / alpha
        against = against - (signed * reach.low if signed > 0 else signed * reach.high)
    return float(np.max(against, initial=0.0))


def _reach(profile: Profile, enforced: Profile) -> _Reach:
    known = _REACHES.setdefault(profile, WeakKeyDictionary())
    if (found := known.get(enforced)) is None:
        found = known[enforced] = _work_out(profile, enforced)
    return found


def _work_out(profile: Profile, enforced: Profile) -> _Reach:
    rows = np.concatenate([_rows(layer) for layer in enforced.tensors.values()])
    squares = np.square(rows).sum(axis=1, keepdims=True)
    # ⟨row, ê⟩ / ‖e‖ is ⟨row, e⟩ / ‖e‖². A row of zeros holds nothing that could be undone.
    per_row = np.divide(rows, squares, out=np.zeros_like(rows), where=squares > 0)
    low, high = np.zeros(len(rows)), np.zeros(len(rows))
    for layer in profile.tensors.values():
        along = _rows(layer) @ per_row.T
        # Each row may also add nothing: its positions and its gate decide.
        low += np.minimum(along.min(axis=0), 0)
        high += np.maximum(along.max(axis=0), 0)
    return _Reach(low, high)


def _rows(layer: Layer) -> _Float64:
    """What a layer may add, float64 [K, D]."""
    named = layer.named
    return np.atleast_2d(named["vector"] if "vector" in named else named["vectors"]).astype(np.float64)
