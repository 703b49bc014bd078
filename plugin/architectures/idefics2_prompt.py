"""What transformers' Idefics2 processor does to the text of a prompt, done to its ids.

Leans on transformers 5 (models/idefics2/processing_idefics2.py): pictures are put between two tokens, two of these in a
row become one, and a blank goes between such a token and a word that follows it directly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any

__all__ = ["spaced", "surrounded"]

_WORD = re.compile(r"[^\s<]")


def surrounded(prompt: Sequence[int], image: int, around: int) -> list[int]:
    """`prompt` with `around` on both sides of each `image`, and each two of them in a row as one."""
    wide = [new for token in prompt for new in ([around, image, around] if token == image else [token])]
    narrow: list[int] = []
    for token, run in groupby(wide):
        count = len(list(run))
        narrow += [token] * (count - count // 2 if token == around else count)
    return narrow


def spaced(prompt: Sequence[int], around: int, tokenizer: Any) -> list[int]:
    """`prompt` with a blank between each `around` and a word that follows it directly.

    Tokenising the text up to the next special token again gives the ids with the blank. Where that text does not give
    the ids that are there, as when somebody sent ids that no text has, they stay as they are.
    """
    special = {*tokenizer.all_special_ids, around}
    found: list[int] = []
    for is_special, run in groupby(prompt, special.__contains__):
        tokens = list(run)
        after = not is_special and bool(found) and found[-1] == around
        found += _spaced(tokens, around, tokenizer) if after else tokens
    return found


def _spaced(tokens: list[int], around: int, tokenizer: Any) -> list[int]:
    mark = tokenizer.convert_ids_to_tokens(around)

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(mark + text, add_special_tokens=False))

    decoded = tokenizer.decode([around, *tokens], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    text = decoded.removeprefix(mark)
    # Some tokenizers write a blank that the text does not have; then the text is the one without.
    for meant in (text.removeprefix(" "), text):
        if ids(meant) == [around, *tokens]:
            return ids(f" {meant}")[1:] if _WORD.match(meant) else tokens
    return tokens
