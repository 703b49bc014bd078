"""Every law once more under model runner V2, in small: half a second a step, so that samples have to do.

What V1 answers is held against the formulas elsewhere; here V2 is held against V1.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.engine.asking import Answer, Ask, Refusal
from tests.engine.engine import V2, Engine
from tests.engine.lawbook import CLOSE, POSITIONS, prompt
from trimtab.vectors import Registry

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def v2(model: Path, laws: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    log = tmp_path_factory.mktemp("log") / "v2-laws.log"
    with Engine(log, model, laws, env=V2, arm={"rows": 2}, max_num_seqs=32) as running:
        yield running


def _same(found: Sequence[Answer], expected: Sequence[Answer]) -> None:
    for here, there in zip(found, expected, strict=True):
        assert here.tokens == there.tokens
        np.testing.assert_allclose(here.logprobs, there.logprobs, rtol=0, atol=CLOSE)


def _both(v2: Engine, court: Engine, asks: Sequence[Ask]) -> None:
    v2.forget()
    court.forget()
    _same(v2.ask(asks), court.ask(asks))


def _counted(engine: Engine, asks: Sequence[Ask]) -> dict[str, float]:
    engine.forget()
    before = engine.call("concepts")
    engine.ask(asks)
    after = engine.call("concepts")
    return {name: value - before.get(name, 0) for name, value in after.items() if value != before.get(name, 0)}


def _mixed(names: Sequence[str], seed: int) -> list[Ask]:
    """A batch of requests that differ in all that a request can differ in; the first has the profile of the seed."""
    rng = random.Random(seed)
    asks: list[Ask] = []
    for number in range(rng.randint(3, 5)):
        first = [names[seed]] if number == 0 else []
        scene = rng.randrange(50) if rng.random() < 0.2 or "image" in str(first) else None
        length = rng.randint(3, 40) + (64 if scene is not None else 0)
        fitting = [name for name in names if name not in first and (scene is not None or "image" not in name)]
        chosen = [*first, *rng.sample(fitting, rng.choice((0, 1, 1, 2, 3, 4 - len(first))))]
        mix = [{"profile": name, "alpha": round(rng.uniform(-1, 1), 3)} for name in chosen]
        ask = prompt(length, 1000 * seed + number, scene=scene)
        asks.append(replace(ask, steering=mix or None, max_tokens=rng.randint(1, 3), late=rng.choice((0, 0, 1, 2))))
    return asks


def test_mixed_batches_are_answered_as_by_v1(v2: Engine, court: Engine, law: Registry) -> None:
    names = sorted(set(law) - {"large"})
    batches = [_mixed(names, seed) for seed in range(len(names))]
    assert len(batches) > 30
    # Never cold but once: what the batches before have left in either cache must not matter.
    v2.forget()
    court.forget()
    for batch in batches:
        found, expected = v2.ask(batch), court.ask(batch)
        _same(found, expected)
        assert [answer.cached for answer in found] == [answer.cached for answer in expected]


@pytest.mark.parametrize("kind", ["coarse", "fine"])
def test_positions_in_pieces(v2: Engine, court: Engine, kind: str) -> None:
    asks = [prompt(9, 1, scene=None).steered(f"{kind}-middle-{at}") for at in POSITIONS if at != "image"]
    asks = [replace(ask, max_tokens=2) for ask in asks]
    court.forget()
    expected = court.ask(asks)
    for size in (2, 5):
        v2.forget()
        v2.call("chunk", size=size)
        try:
            _same(v2.ask(asks), expected)
        finally:
            v2.call("chunk", size=0)


def test_two_pictures_and_their_words(v2: Engine, court: Engine) -> None:
    ask = Ask(ids=(418, 324, 4, 495, 594, 4, 601), scene=5, scenes=(6,), full=True, ignore_eos=True, max_tokens=2)
    _both(v2, court, [ask.steered(f"coarse-middle-{at}") for at in ("image", "text", "prompt", "answer", "all")])


def test_a_preempted_answer_keeps_its_first_decision(v2: Engine, court: Engine) -> None:
    # The prompt ends two positions before its block does: what comes back begins behind the one that decided.
    asks = [
        replace(prompt(length, 5), steering=steering, max_tokens=7)
        for length in (62, 31, 20)
        for steering in ("once", ["once-euclidean", "once-last", "once-cosine"])
    ]
    court.forget()
    expected = court.ask(asks)
    v2.forget()
    before = v2.call("preemptions")
    _same(v2.ask(asks, preempt=[4, 6]), expected)
    assert v2.call("preemptions") == before + 2 * len(asks)


def test_an_abort_frees_the_place_of_a_decision(v2: Engine, court: Engine) -> None:
    asks = [replace(prompt(12, number), steering="once", max_tokens=4) for number in range(3)]
    expected = court.ask_alone(asks)
    v2.forget()
    gone = [replace(ask, ids=(*(ask.ids or ()), 300), abort=2) for ask in asks]
    replies = v2.try_all([*gone, *(replace(ask, late=number) for number, ask in enumerate(asks))])
    assert all(isinstance(reply, Refusal) for reply in replies[:3])
    _same([reply for reply in replies[3:] if isinstance(reply, Answer)], expected)


def test_profiles_add_up_and_their_order_changes_no_bit(v2: Engine, court: Engine) -> None:
    mixes: list[list[Any]] = [["a", "b"], ["once", "gate-cosine-20", "a"], ["large", "follows"], ["sum"]]
    asks = [replace(prompt(20, 6), steering=mix, max_tokens=2) for mix in mixes]
    _both(v2, court, asks)
    v2.forget()
    first = v2.ask(asks)
    v2.forget()
    turned = v2.ask([replace(ask, steering=ask.steering[::-1]) for ask in asks])
    assert [(one.tokens, one.logprobs) for one in first] == [(one.tokens, one.logprobs) for one in turned]
    np.testing.assert_allclose(first[0].logprobs, first[3].logprobs, rtol=0, atol=CLOSE)


def test_pairs_of_steerings_reuse_what_v1_reuses(v2: Engine, court: Engine) -> None:
    names = [None, "a", "b", ["a", "b"], "coarse-middle-answer", "fine-middle-text", "coarse-last-all", "once"]
    asks = [
        [replace(prompt(62, 9), salt=f"v2 {n} {m}", steering=name, max_tokens=4) for m, name in enumerate(names)]
        for n in range(len(names))
    ]
    firsts = [replace(ask, steering=names[n], full=False) for n, row in enumerate(asks) for ask in row]
    turns = []
    for engine in (v2, court):
        answers = [answer for some in _rows(firsts) for answer in engine.ask(some)]
        turns.append([answer.tokens for answer in answers])
    assert turns[0] == turns[1]
    seconds = [
        replace(ask, ids=(*(ask.ids or ()), *tokens, 301, 302), max_tokens=1)
        for ask, tokens in zip([ask for row in asks for ask in row], turns[0], strict=True)
    ]
    for some in _rows(seconds):
        found, expected = v2.ask(some), court.ask(some)
        _same(found, expected)
        assert [answer.cached for answer in found] == [answer.cached for answer in expected]


def _rows(asks: list[Ask]) -> Iterator[list[Ask]]:
    for start in range(0, len(asks), 32):
        yield asks[start : start + 32]


def test_concepts_are_counted_as_under_v1(v2: Engine, court: Engine, law: Registry) -> None:
    gated = sorted(
        name for name, one in law.items() if one.manifest.kind == "fine" and one.manifest.positions != "image"
    )
    asks = [replace(prompt(9, 70_000 + number), steering=name, max_tokens=2) for number, name in enumerate(gated[:6])]
    found = _counted(v2, asks)
    assert found == _counted(court, asks)
    assert sum(found.values()) >= len(asks)
