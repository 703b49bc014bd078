"""What users have without steering: constants added to the logits of the words themselves."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import SettingError
from .config import Steering

__all__ = ["SIZES", "bias_of", "scaled"]

SIZES = (2.0, 4.0, 8.0, 16.0)
"""The constants that are tried on dev."""
_GOALS = ("answers", "captions")


def bias_of(steering: Steering, model: Path) -> dict[str, float]:
    """By token id -1 for every spelling of an original word and 1 for every one of a target, to be multiplied.

    Raises:
        SettingError: this steering has no such control; says why.
    """
    if steering.goal.kind not in _GOALS or steering.label != "answer" or steering.groups:
        raise SettingError("its goal is not about single words that become others")
    import torch  # noqa: F401  # before transformers, which looks for packages that torch's start puts right
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    found: dict[str, float] = {}
    for words, sign in ((steering.map, -1.0), (steering.map.values(), 1.0)):
        for word in words:
            tokens = _single(tokenizer, word)
            if not tokens:
                raise SettingError(f"{word!r} is more than one token of this model")
            found |= {str(token): sign for token in tokens}
    return found


def scaled(bias: Mapping[str, float], size: float) -> dict[str, float]:
    """The field `logit_bias` of a request."""
    return {token: sign * size for token, sign in bias.items()}


def _single(tokenizer: Any, word: str) -> set[int]:
    """The tokens that write the word alone: with and without a space before it, in lower and in title case."""
    found = set()
    for text in {spelt for form in (word, word.capitalize()) for spelt in (form, f" {form}")}:
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens = [one for one in ids if tokenizer.decode([one]).strip()]  # a space may be a token of its own
        if len(tokens) == 1 and tokenizer.decode(tokens).strip() == text.strip():
            found.add(tokens[0])
    return found
