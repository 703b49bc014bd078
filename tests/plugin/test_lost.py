"""Marks on tokens become the names of requests; what a caller is told; where a step's marks are looked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vllm.exceptions import GenerationError
from vllm.outputs import CompletionOutput, RequestOutput

from trimtab.plugin.requests import lost
from trimtab.plugin.requests.lost import LOST, raise_if_lost
from trimtab.plugin.requests.request import Part, Steering
from trimtab.plugin.steps.decisions import SteeredRequest
from trimtab.plugin.steps.entries import TokenEntries
from trimtab.plugin.steps.lost import StepMarks

STEERING = Steering((Part("digest", 1.0, ((0, 1 << 30),), None, False),))


def request(name: str) -> SteeredRequest:
    return SteeredRequest(STEERING, {"digest": 1}, name)


@given(st.lists(st.tuples(st.booleans(), st.lists(st.booleans(), min_size=1, max_size=4)), min_size=1, max_size=6))
def test_a_request_is_named_once_if_any_of_its_tokens_is_marked(batch: list[tuple[bool, list[bool]]]) -> None:
    marks = [mark and steered for steered, tokens in batch for mark in tokens]
    found = StepMarks(
        torch.tensor(marks, dtype=torch.uint8),
        [request(str(number)) if steered else None for number, (steered, _) in enumerate(batch)],
        np.array([len(tokens) for _, tokens in batch]),
    )
    assert found.names() == [str(number) for number, (steered, tokens) in enumerate(batch) if steered and any(tokens)]


def test_marks_of_a_step_are_read_with_its_own_batch_and_none_after_one_in_which_nothing_acts() -> None:
    entries = TokenEntries(8)
    none, three, one = (np.full(2, count, np.int32) for count in (0, 3, 1))
    entries.fill([None, request("b")], none, three)
    assert entries.marks() is None
    entries.lost[:] = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1])
    marks = entries.marks()
    entries.fill([request("c"), None], none, one)
    assert marks is not None
    assert marks.names() == ["b"]
    assert entries.marks() is None  # the marks behind its own two tokens are of the step before
    entries.lost[0] = 1
    assert (found := entries.marks()) is not None
    assert found.names() == ["c"]
    entries.fill([None, None], three, one)
    assert entries.marks() is None


class Served:
    """The outputs of one request, as the engine's own part gives them out."""

    closed = False

    def __init__(self, *reasons: tuple[str | None, str | None]) -> None:
        self.outputs = [
            RequestOutput(
                "r", None, [1], None, [CompletionOutput(0, "a", [1], None, None, None, *reason)], bool(reason[0])
            )
            for reason in reasons
        ]

    async def __call__(self) -> AsyncGenerator[RequestOutput, None]:
        try:
            for output in self.outputs:
                yield output
        finally:
            self.closed = True


async def read(served: Served, most: int = 9) -> list[RequestOutput]:
    """What a door gets that leaves after so many."""
    found: list[RequestOutput] = []
    async with aclosing(raise_if_lost(served())) as outputs:
        async for output in outputs:
            found.append(output)
            if len(found) == most:
                break
    return found


@pytest.mark.parametrize("reason", [("stop", "\n"), ("error", None), ("length", None)])
def test_outputs_of_any_other_request_come_as_they_are(reason: tuple[str, str | None]) -> None:
    served = Served((None, None), reason)
    assert asyncio.run(read(served)) == served.outputs


def test_a_lost_request_is_an_error_that_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    served, told = Served((None, None), ("error", LOST)), []
    monkeypatch.setattr(lost, "observers", [lambda: told.append(1)])
    with pytest.raises(GenerationError, match="the steering of this request was lost") as raised:
        asyncio.run(read(served))
    assert raised.value.status_code == 500
    assert served.closed
    assert told == [1]


def test_the_engine_hears_at_once_of_a_client_that_leaves() -> None:
    served = Served((None, None), (None, None))
    asyncio.run(read(served, most=1))
    assert served.closed
