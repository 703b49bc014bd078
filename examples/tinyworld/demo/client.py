"""Asks a running server through the `openai` package, many questions at once."""

from __future__ import annotations

import asyncio
import base64
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import AsyncOpenAI
from tqdm.asyncio import tqdm

from examples.tinyworld.ask import Sample
from examples.tinyworld.demo.server import MODEL_NAME

AT_ONCE = 32
MOST_TOKENS = {"caption": 40, "safety": 20}
SHORT = 6
"""Tokens of a VQA answer: it has one word, and the rest shows repetition where a strength is too high."""


@dataclass(frozen=True)
class How:
    """What a round of questions is asked with; nothing at all is unsteered."""

    profile: str | None = None
    alpha: float | None = None
    logit_bias: dict[str, float] | None = None

    def fields(self) -> dict[str, Any]:
        """The fields of a chat completion that say so."""
        found: dict[str, Any] = {}
        if self.profile is not None:
            found["extra_body"] = {"steering": {"profile": self.profile, "alpha": self.alpha}}
        if self.logit_bias is not None:
            found["logit_bias"] = self.logit_bias
        return found


UNSTEERED = How()


class Client:
    """Questions about the pictures of one split."""

    def __init__(self, base_url: str, runner: asyncio.Runner) -> None:
        self._openai = AsyncOpenAI(base_url=base_url, api_key="none", timeout=300, max_retries=0)
        self._runner = runner

    def ask(self, folder: Path, samples: Sequence[Sample], how: How = UNSTEERED, *, label: str = "") -> list[str]:
        """Greedy answers, in the order of the samples."""

        async def all_of_them() -> list[str]:
            gate = asyncio.Semaphore(AT_ONCE)
            asked = [self._ask(gate, folder, sample, how.fields()) for sample in samples]
            answers: list[str] = await tqdm.gather(*asked, desc=f"{label:<34}", unit="q", leave=False)
            return answers

        return self._runner.run(all_of_them())

    async def _ask(self, gate: asyncio.Semaphore, folder: Path, sample: Sample, fields: dict[str, Any]) -> str:
        async with gate:
            reply = await self._openai.chat.completions.create(
                model=MODEL_NAME,
                messages=messages(folder, sample),
                temperature=0,
                max_tokens=MOST_TOKENS.get(sample.type, SHORT),
                **fields,
            )
        return reply.choices[0].message.content or ""

    def tokens(self, folder: Path, samples: Sequence[Sample], how: How, *, length: int) -> int:
        """How many tokens were generated when every answer is made exactly `length` tokens long."""

        async def all_of_them() -> int:
            gate = asyncio.Semaphore(AT_ONCE)
            fields = how.fields()
            fields["extra_body"] = {**fields.get("extra_body", {}), "ignore_eos": True}
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


def messages(folder: Path, sample: Sample) -> Any:
    """One user turn in OpenAI's form: the picture, then the question."""
    parts = [
        {"type": "image_url", "image_url": {"url": _data_url(folder / sample.image)}},
        {"type": "text", "text": sample.question},
    ]
    return [{"role": "user", "content": parts}]


@functools.cache
def _data_url(image: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(image.read_bytes()).decode()
