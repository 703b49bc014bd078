"""A model that is read: its answers, its states, its vocabulary and its words.

Reader       answers questions and shows the residual stream
Question     what it is asked
Vocabulary   which of a tokenizer's tokens are words
Answer       a generated text, and the tokens that wrote it
words_in, find_phrases   words in a text, by boundary
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .._lazy import lazily
from .words import Answer, find_phrases, words_in

if TYPE_CHECKING:
    from .reader import Question, Reader
    from .vocabulary import Vocabulary

__all__ = ["Answer", "Question", "Reader", "Vocabulary", "find_phrases", "words_in"]
__getattr__ = lazily(__name__, {"Question": ".reader", "Reader": ".reader", "Vocabulary": ".vocabulary"})
