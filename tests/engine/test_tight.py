"""Prompts in pieces and requests that are sent back to the queue are steered as if neither had happened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.asking import Ask, caption, questions
from tests.engine.engine import Engine

pytestmark = pytest.mark.engine

TEXT = "is there a red ball? are there two blue stars? who is there? " * 5
STEERINGS = [
    None,
    "coarse-middle-all",
    {"profile": "fine-middle-answer", "alpha": 0.5},
    "coarse-last-answer",
    {"profile": "fine-last-all", "alpha": 0.5},
    {"profile": "coarse-middle-answer", "alpha": -1},
]


@pytest.fixture(scope="module")
def tight(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """32 tokens a step and 16 blocks of KV cache: a prompt takes steps, and not even four long answers fit at once."""
    log = tmp_path_factory.mktemp("log") / "tight.log"
    small: dict[str, Any] = {
        "max_num_batched_tokens": 32,
        "max_num_seqs": 8,
        "num_gpu_blocks_override": 16,
        "max_model_len": 256,
    }
    with Engine(log, model, profiles, enable_chunked_prefill=True, **small) as running:
        yield running


@pytest.mark.parametrize("steering", STEERINGS)
def test_a_prompt_that_is_read_in_pieces_is_steered_as_one_that_is_read_at_once(
    engine: Engine, tight: Engine, steering: object
) -> None:
    asks = [
        replace(ask, steering=steering, full=True, max_tokens=4, ignore_eos=True)
        for ask in (Ask(TEXT), caption(3), questions("number", 1)[0])
    ]
    for whole, pieces in zip(engine.ask_alone(asks), tight.ask_alone(asks), strict=True):
        assert len(pieces.prompt) > 2 * 32
        assert pieces.tokens == whole.tokens
        np.testing.assert_allclose(pieces.logprobs, whole.logprobs, rtol=0, atol=1e-4)


def test_a_preempted_request_goes_on_as_if_nothing_had_happened(engine: Engine, tight: Engine) -> None:
    asks = [
        Ask(f"{text} {TEXT[:60]}", max_tokens=90, ignore_eos=True, steering=steering)
        for text, steering in zip(("who", "what", "red", "blue", "is", "are"), STEERINGS, strict=True)
    ]
    tight.forget()
    before = tight.call("preemptions")
    answers = tight.ask(asks)
    assert tight.call("preemptions") > before
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in engine.ask_alone(asks)]
