"""What the makers of profiles ask of a mapping's words, and what they record of the states."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

import numpy as np

from trimtab.vectors.manifest import Provenance

from ..errors import SettingError
from ..states.rules import NO_TOKEN
from ..states.store import LayerStates

__all__ = ["check_pairs", "check_words", "provenance_of", "spoken", "typical_norm"]


def typical_norm(states: LayerStates) -> float:
    """The median ‖h‖ of the states."""
    return float(np.median(np.linalg.norm(states.values.astype(np.float64), axis=1)))


def check_words(states: LayerStates, words: Iterable[str]) -> None:
    """Passes when states stand for each of the words.

    Raises:
        SettingError: with the nearest word that has states.
    """
    counts = Counter(states.labels)
    for word in words:
        if word not in counts:
            raise SettingError(
                f"no state stands for {word!r}{_meant(word, counts)}; represent more samples, or use another rule"
            )


def check_pairs(states: LayerStates, mapping: Mapping[str, str]) -> None:
    """Passes when states stand for each word, and can tell the words of each pair apart.

    Raises:
        SettingError: as `check_words`; or both words of a pair are answers that begin with the predicted token.
    """
    check_words(states, (*mapping, *mapping.values()))
    if states.manifest.request.labels is not None:
        return  # the labels are not the words that the states predict
    for original, target in mapping.items():
        first, second = (
            Counter(states.tokens[states.of({word})].tolist()).most_common(1)[0][0] for word in (original, target)
        )
        if first == second != NO_TOKEN:
            raise SettingError(
                f"{original!r} and {target!r} begin with the same token, and that is what these states predict; "
                f"represent with --rule predicts:{original},{target}, which takes the token that tells them apart"
            )


def spoken(mapping: Mapping[str, str]) -> str:
    """The mapping for people: "yes → no, two → three"."""
    return ", ".join(f"{original} → {target}" for original, target in mapping.items())


def provenance_of(states: LayerStates, words: Iterable[str], method: str, seed: int | None) -> Provenance:
    """What is known of the states, with how many stand for each of the words."""
    counts = Counter(states.labels)
    return states.manifest.provenance(method, seed, {word: counts[word] for word in words})


def _meant(word: str, known: Iterable[str]) -> str:
    close = get_close_matches(word, sorted(set(known)), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
