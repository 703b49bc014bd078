"""What the gates of the loaded profiles have chosen, read from the tables.

A read waits for the device, so it belongs between two steps, and not into each of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..steps.drift import Counts
from .tables import SteeringTables

__all__ = ["Chosen", "chosen_in"]


@dataclass(frozen=True)
class Chosen:
    """A loaded fine profile of K concepts at one layer.

    name: of the profile; where several have the same bits, of one of them. requests: that have come for it, to this
    worker. decided: by the gate at a position, [K + 1] (see `drift.Counts`). kept: taken over at a position from the
    last one of the prompt (`gate.scope` "sequence"), likewise. expected: K shares of `decided`, see
    `ProfileManifest.expected`; None where they are not known.
    """

    name: str
    digest: str
    layer: int
    requests: int
    decided: Counts
    kept: Counts
    expected: tuple[float, ...] | None

    @property
    def key(self) -> tuple[str, int]:
        return self.digest, self.layer


def chosen_in(tables: SteeringTables) -> list[Chosen]:
    """Of every loaded fine profile, at each of its layers that this worker has; counted since it was loaded."""
    counts: dict[int, Counts] = {}
    found = []
    for digest, (manifest, seat) in tables.loaded.items():
        if manifest.kind != "fine":
            continue
        for layer, (first, rows) in seat.rows.items():
            if layer not in counts:
                counts[layer] = tables.layers[layer].counts.cpu().numpy().copy()
            middle, end = first + rows // 2, first + rows
            decided, kept = (np.append(one[middle:end], one[first]) for one in counts[layer])
            expected = (manifest.expected or {}).get(layer)
            found.append(Chosen(manifest.name, digest, layer, tables.requests[digest], decided, kept, expected))
    return found
