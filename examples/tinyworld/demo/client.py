"""Asks a running server: for answers, and for as many tokens as it can give."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI

from examples.tinyworld.ask import Sample
from examples.tinyworld.demo.server import MODEL_NAME
from examples.tinyworld.served import AT_ONCE, answers
from trimtab.offline.evaluation.data_url import data_url

MOST_TOKENS = {"caption": 40, "safety": 20}
SHORT = 6
"""Tokens of a VQA answer: it has one word, and the rest shows repetition where a strength is too high."""


@dataclass(frozen=True)
class How:
    """What a round of questions is asked with; nothing at all is unsteered."""

    profile: str | None = None
    alpha: float | None = None
    logit_bias: dict[str, float] | None = None

    @property
    def steering(self) -> dict[str, Any] | None:
        """The field of a request that steers."""
        return None if self.profile is None else {"profile": self.profile, "alpha": self.alpha}

    @property
    def extra(self) -> dict[str, Any] | None:
        """Its other fields."""
        return None if self.logit_bias is None else {"logit_bias": self.logit_bias}


UNSTEERED = How()


class Client:
    """Questions about the pictures of one split."""

    def __init__(self, base_url: str, runner: asyncio.Runner) -> None:
        self._base_url = base_url
        self._openai = AsyncOpenAI(base_url=base_url, api_key="none", timeout=300, max_retries=0)
        self._runner = runner

    def ask(self, folder: Path, samples: Sequence[Sample], how: How = UNSTEERED, *, label: str = "") -> list[str]:
        """Greedy answers, in the order of the samples."""
        return answers(
            self._base_url,
            MODEL_NAME,
            folder,
            samples,
            [most_tokens(sample) for sample in samples],
            steering=how.steering,
            extra=how.extra,
            label=label,
        )

    def tokens(self, folder: Path, samples: Sequence[Sample], how: How, *, length: int) -> int:
        """How many tokens were generated when every answer is made exactly `length` tokens long."""

        async def all_of_them() -> int:
            gate = asyncio.Semaphore(AT_ONCE)
            steering = {} if how.steering is None else {"steering": how.steering}
            fields = {"extra_body": {**steering, **(how.extra or {}), "ignore_eos": True}}
            return sum(await asyncio.gather(*(self._count(gate, folder, s, fields, length) for s in samples)))

        return self._runner.run(all_of_them())

    async def _count(
        self, gate: asyncio.Semaphore, folder: Path, sample: Sample, fields: dict[str, Any], length: int
    ) -> int:
        async with gate:
            reply = await self._openai.chat.completions.create(
                model=MODEL_NAME, messages=messages(folder, sample), temperature=0, max_tokens=length, **fields
            )
        return reply.usage.completion_tokens if reply.usage else 0


def most_tokens(sample: Sample) -> int:
    """Where the answer to a sample is cut."""
    return MOST_TOKENS.get(sample.type, SHORT)


def messages(folder: Path, sample: Sample) -> Any:
    """One user turn in OpenAI's form: the picture, then the question."""
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(folder / sample.image)}},
        {"type": "text", "text": sample.question},
    ]
    return [{"role": "user", "content": parts}]
