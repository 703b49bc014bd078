"""Who is not given what it was to be given is told so, and nobody else notices.

No profile that loads, at a strength that is admitted, adds what is not finite. So its rows are damaged on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.engine.asking import Answer, Refusal
from tests.engine.engine import Engine
from tests.engine.lawbook import prompt
from trimtab.plugin.requests.lost import LOST
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine

HIT = ("coarse-middle-answer", "coarse-middle-prompt", "fine-middle-all")
BLOCK = 32


@pytest.fixture
def damaged(court: Engine, law: Registry) -> Iterator[Engine]:
    for name in HIT:
        court.call("damage", digest=law[name].digest)
    court.forget()
    yield court
    court.call("mend")
    court.forget()


def bits(answers: list[Answer]) -> list[object]:
    return [(answer.tokens, answer.logprobs, answer.error) for answer in answers]


def test_a_lost_request_ends_with_an_error_and_its_neighbours_have_the_bits_they_have_alone(damaged: Engine) -> None:
    bystanders = [
        prompt(40, 1),
        replace(prompt(40, 1), steering="coarse-last-answer"),
        replace(prompt(70, 2), steering="follows", late=1),
        replace(prompt(9, 3), steering={"profile": "coarse-middle-image", "alpha": 0.5}, scene=4, ids=(4, 301, 302)),
    ]
    mix = ["a", {"profile": "coarse-middle-answer", "alpha": 0.1}]
    hit = [
        *(replace(prompt(40, 1), steering=name) for name in HIT),
        replace(prompt(40, 5), steering=mix, late=2),
        replace(prompt(20, 6), steering="coarse-middle-answer", max_tokens=1),
        replace(prompt(20, 7), steering="coarse-middle-answer", full=False, n=2),
    ]
    alone = damaged.ask_alone(bystanders)
    assert [answer.error for answer in alone] == [None] * len(bystanders)
    damaged.forget()
    together = damaged.ask(
        [ask for pair in zip(hit, bystanders, strict=False) for ask in pair] + hit[len(bystanders) :]
    )
    served = together[1 : 2 * len(bystanders) : 2]
    assert bits(served) == bits(alone)
    ended = together[0 : 2 * len(bystanders) : 2] + together[2 * len(bystanders) :]
    assert [(answer.error, answer.tokens) for answer in ended] == [(LOST, [])] * len(hit)
    assert "steering" in LOST


def test_what_was_written_to_the_cache_unsteered_is_not_found_there(damaged: Engine) -> None:
    # Its positions end before the prompt does: a request that found its blocks would add nothing itself.
    ask = replace(prompt(2 * BLOCK + 1, 8), steering="coarse-middle-prompt")
    first, together = damaged.ask([ask])[0], damaged.ask([ask, ask])
    assert [answer.error for answer in (first, *together)] == [LOST] * 3
    damaged.call("mend")
    (after,) = damaged.ask([ask])
    damaged.forget()
    assert after.cached == 0
    assert bits([after]) == bits(damaged.ask([ask]))


def test_what_another_one_computed_over_it_is_not_found_either(damaged: Engine, law: Registry) -> None:
    # The second finds the picture of the first in the cache. Its own words are not steered, and fill blocks too.
    damaged.call("damage", digest=law["coarse-middle-image"].digest)
    words = tuple(range(310, 310 + 2 * BLOCK))
    first, second = (
        replace(prompt(9, 3), steering="coarse-middle-image", scene=4, ids=(4, *more)) for more in (words[-2:], words)
    )
    assert [answer.error for answer in damaged.ask([first, second])] == [LOST] * 2
    damaged.call("mend")
    damaged.ask([second])
    next_turn = replace(second, ids=(*(second.ids or ()), 301))
    (after,) = damaged.ask([next_turn])
    damaged.forget()
    assert after.cached > 0
    assert bits([after]) == bits(damaged.ask([next_turn]))


def test_a_client_that_leaves_meanwhile_leaves_nothing_unsteered_behind(damaged: Engine) -> None:
    ask = replace(prompt(2 * BLOCK + 1, 8), steering="coarse-middle-prompt")
    gone, bystander = damaged.try_all([replace(ask, leaves=0), prompt(40, 1)])
    assert isinstance(gone, Refusal)
    assert isinstance(bystander, Answer)
    assert bystander.error is None
    damaged.call("mend")
    (after,) = damaged.ask([ask])
    damaged.forget()
    assert after.cached == 0
    assert bits([after]) == bits(damaged.ask([ask]))


def test_a_prompt_that_is_read_in_parts_ends_at_the_first_that_is_hit(damaged: Engine) -> None:
    damaged.call("chunk", size=16)
    try:
        ask = replace(prompt(60, 9), steering="coarse-middle-prompt")
        assert [answer.error for answer in damaged.ask([ask, prompt(60, 10)])] == [LOST, None]
    finally:
        damaged.call("chunk", size=0)
