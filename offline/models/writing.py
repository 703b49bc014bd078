"""What a model reads and writes: its tokenizer, processor and chat template, without its weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from trimtab.vectors import ModelIdentity

from ..errors import SettingError
from .chat import Chat, ChatTemplate
from .words import Answer

__all__ = ["Question", "Writing"]


@dataclass(frozen=True)
class Question:
    """What a model is asked: text, and at most one picture."""

    text: str
    image: Image.Image | None = None


class Writing:
    """How a model's questions become prompts, and its tokens words.

    processor: None for a model that reads text only. template: what the server is started with, where that is not the
    model folder's own.
    """

    def __init__(
        self,
        folder: Path,
        identity: ModelIdentity,
        tokenizer: Any,
        processor: Any,
        template: ChatTemplate | None = None,
    ) -> None:
        """Raises:
        ModelError: no chat template.
        """
        self.folder = folder
        self.identity = identity
        self.tokenizer, self.processor = tokenizer, processor
        self.chat = Chat(tokenizer, processor, template)

    def check_layers(self, layers: Sequence[int]) -> tuple[int, ...]:
        """`layers` sorted, each once.

        Raises:
            SettingError: none at all, or one that the decoder does not have.
        """
        top = self.identity.num_layers - 1
        if not layers or min(layers) < 0 or max(layers) > top:
            asked = ", ".join(map(str, layers)) or "none"
            raise SettingError(f"layers {asked} asked for; this decoder has the layers 0 to {top}")
        return tuple(sorted(set(layers)))

    def prompt(self, question: Question) -> str:
        """The text that the chat route makes of a question: one user turn, picture first, and the answer's opening."""
        return self.chat.prompt(question.text, question.image is not None)

    def spell(self, word: str) -> Iterator[tuple[int, ...]]:
        """The token sequences that may write a word: with and without a space before it, in lower and title case."""
        for written in (word, word.capitalize()):
            for text in (written, " " + written):
                answer = self.decode(self.tokenizer.encode(text, add_special_tokens=False))
                start = len(answer.text) - len(answer.text.lstrip())
                yield tuple(answer.tokens[i] for i in answer.tokens_of(start, len(answer.text)))

    def decode(self, tokens: Sequence[int]) -> Answer:
        """Ids with the text that they write."""
        return Answer.decode(tokens, self.text)

    def text(self, tokens: Sequence[int]) -> str:
        """The text that ids write, special tokens left out."""
        return str(self.tokenizer.decode(list(tokens), skip_special_tokens=True))
