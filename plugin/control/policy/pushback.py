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
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from trimtab.vectors import Profile
from trimtab.vectors.layers import Layer

__all__ = ["prepare", "share_undone"]

_Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Reach:
    """Of one profile at strength 1: at most `high` along each row of an enforced one, at least `low`; float64 [R]."""

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

    own: profiles with their strengths. alpha: the enforced strength, not 0.
    """
    norms = np.concatenate([np.linalg.norm(_rows(layer), axis=1) for layer in enforced.tensors.values()])
    against = np.zeros_like(norms)
    for profile, strength in own:
        reach = _reach(profile, enforced)
        signed = strength * np.sign(alpha)
        against += signed * -reach.low if signed > 0 else -signed * reach.high
    acting = norms > 0
    return float((against[acting] / (abs(alpha) * norms[acting])).max(initial=0.0))


def _reach(profile: Profile, enforced: Profile) -> _Reach:
    known = _REACHES.setdefault(profile, WeakKeyDictionary())
    if (found := known.get(enforced)) is None:
        found = known[enforced] = _work_out(profile, enforced)
    return found


def _work_out(profile: Profile, enforced: Profile) -> _Reach:
    rows = np.concatenate([_rows(layer) for layer in enforced.tensors.values()])
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    directions = np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
    low, high = np.zeros(len(rows)), np.zeros(len(rows))
    for layer in profile.tensors.values():
        along = _rows(layer) @ directions.T
        # Each row may also add nothing: its positions and its gate decide.
        low += np.minimum(along.min(axis=0), 0)
        high += np.maximum(along.max(axis=0), 0)
    return _Reach(low, high)


def _rows(layer: Layer) -> _Float64:
    """What a layer may add, float64 [K, D]."""
    named = layer.named
    return np.atleast_2d(named["vector"] if "vector" in named else named["vectors"]).astype(np.float64)
