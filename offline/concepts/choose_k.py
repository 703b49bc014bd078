"""How many concepts: quality against K, and where its gain falls off."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from trimtab.vectors import ConceptDictionary

from ..errors import SettingError
from ..findings import ChoiceFound
from ..progress import tracked
from ..states.store import LayerStates
from .grounding import top_words
from .quality import mean_overlap, own_concepts, residual

if TYPE_CHECKING:
    from ..models.reader import Reader

__all__ = ["choose_k", "knee"]


def choose_k(
    blocks: Iterable[LayerStates],
    ks: Sequence[int],
    make: Callable[[int], ConceptDictionary],
    *,
    model: Reader | None = None,
    title: str = "Choice of K",
    progress: bool = False,
) -> ChoiceFound:
    """Dictionaries of every size in `ks`, measured on the states; `chosen` is the `knee` of the reconstruction error.

    blocks: such as `ShardedStates`. make: the dictionary of k concepts of these states. model: whose words to compare;
    the curve of word overlaps is left out without one.

    Raises:
        SettingError: no k at all, and what `make` raises.
    """
    if not ks:
        raise SettingError("no k given; name at least three, such as --k 5 --k 10 --k 20")
    sizes = sorted(set(ks))
    curves: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        curves.setdefault(name, []).append(value)

    for k in tracked("choose k", sizes, len(sizes), unit="size", show=progress):
        made = make(k)
        left = residual(made, blocks)
        note("reconstruction error", left.error)
        note("inertia", left.squares)
        if model is not None:
            note("mean pairwise word overlap", mean_overlap(top_words(made.centroids, model)))
        note("concepts", len(made.labels))
        note("smallest concept", float(made.counts.min()))
        note("labels with a concept of their own", own_concepts(made))
    return ChoiceFound(
        title=title,
        note="Chosen: the k whose reconstruction error lies farthest below the straight line between the ends.",
        k=tuple(sizes),
        curves={name: tuple(values) for name, values in curves.items()},
        chosen=knee(sizes, curves["reconstruction error"]),
    )


def knee(ks: Sequence[int], errors: Sequence[float]) -> int | None:
    """The k farthest below the straight line between the ends of the curve, both axes scaled to 0 … 1.

    That is the point of Satopää et al., "Finding a 'Kneedle' in a Haystack" (2011), for a falling curve. The smallest k
    wins a tie; None where there is no such point: fewer than three k, or a curve that does not fall below the line.
    """
    if len(ks) < 3 or errors[0] <= errors[-1]:
        return None
    x = (np.array(ks) - ks[0]) / (ks[-1] - ks[0])
    y = (np.array(errors) - errors[-1]) / (errors[0] - errors[-1])
    below = 1 - x - y
    best = int(np.argmax(below))
    return int(ks[best]) if below[best] > 0 else None
