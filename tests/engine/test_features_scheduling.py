"""Priorities, requests that are taken back, and names that are used again: each request keeps its own steering."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.engine.asking import Ask, caption
from tests.engine.engine import Engine
from tests.engine.test_tight import STEERINGS
from trimtab.plugin.requests.lost import LOST
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

TEXT = "is there a red ball? are there two blue stars? who is there? "


@pytest.fixture(scope="module")
def tight(model: Path, profiles: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """Not even four long answers fit into the KV cache at once; the urgent go first; names stay as they are."""
    log = tmp_path_factory.mktemp("log") / "priority.log"
    small: dict[str, Any] = {
        "max_num_batched_tokens": 64,
        "max_num_seqs": 8,
        "num_gpu_blocks_override": 16,
        "max_model_len": 256,
    }
    env = {"VLLM_DISABLE_REQUEST_ID_RANDOMIZATION": "1"}
    with Engine(log, model, profiles, env=env, scheduling_policy="priority", **small) as running:
        yield running


def test_a_late_and_urgent_request_pushes_others_aside_and_all_are_told_what_they_are_told_alone(
    engine: Engine, tight: Engine
) -> None:
    patient = [
        Ask(f"{text} {TEXT}", max_tokens=90, ignore_eos=True, steering=steering, priority=5 + number)
        for number, (text, steering) in enumerate(zip(("who", "what", "red", "blue", "is"), STEERINGS, strict=False))
    ]
    urgent = [
        caption(3, max_tokens=20, ignore_eos=True, steering=steering, priority=0, late=late)
        for steering, late in (({"profile": "coarse-middle-all", "alpha": -1}, 20), (None, 30), ("fine-last-all", 41))
    ]
    before = tight.call("preemptions")
    answers = tight.ask([*patient, *urgent])
    assert tight.call("preemptions") > before + 1
    expected = engine.ask_alone([replace(ask, priority=0) for ask in (*patient, *urgent)])
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in expected]


def test_a_seeded_request_whose_prompt_comes_in_parts_draws_what_it_draws_alone(engine: Engine, tight: Engine) -> None:
    """vLLM's own step would end the engine: a generator of the CPU cannot take a draw back by an offset."""
    asks = [
        Ask(TEXT * 9, steering=steering, sampling={"temperature": 1.0, "seed": seed, "max_tokens": 20})
        for seed, steering in ((1, None), (2, "coarse-middle-all"), (3, None))
    ]
    tight.forget()
    answers = tight.ask(asks)
    assert min(len(answer.prompt) for answer in answers) > 64  # more than a step takes
    assert [answer.tokens for answer in answers] == [answer.tokens for answer in engine.ask_alone(asks)]


def test_a_name_that_is_used_again_brings_nothing_of_its_former_steering(engine: Engine, tight: Engine) -> None:
    # In the core both requests have the same name; the worker hears of the end of one and of the other in one step.
    ask = caption(5, max_tokens=8, ignore_eos=True)
    steerings: list[Any] = [
        "coarse-middle-all",
        None,
        {"profile": "fine-last-answer", "alpha": -2},
        {"profile": "coarse-last-answer", "alpha": 2},
        None,
    ]
    told = []
    tight.forget()
    for number, steering in enumerate(steerings):
        tight.call("reuse_names")
        tight.try_all([replace(ask, max_tokens=40, steering=steerings[number - 1], abort=4)])
        tight.call("reuse_names")
        told += [answer.tokens for answer in tight.ask([ask.steered(steering)])]
    assert told == [answer.tokens for answer in engine.ask_alone([ask.steered(steering) for steering in steerings])]
    assert len({tuple(tokens) for tokens in told}) >= 3


def test_a_request_under_the_name_of_one_that_was_lost_is_not_answered_unsteered_either(
    tight: Engine, registry: Registry
) -> None:
    lost = caption(5, max_tokens=4, steering="coarse-middle-answer")
    tight.call("damage", digest=registry["coarse-middle-answer"].digest)
    try:
        told = []
        for _ in range(2):
            tight.call("reuse_names")
            told += [answer.error for answer in tight.ask([lost])]
    finally:
        tight.call("mend")
    assert told == [LOST] * 2
