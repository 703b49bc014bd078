"""A pool, the answers that each of its requests gets alone, and batches held against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from tests.conformance.batches import BLOCKS, RUNNING, TOKENS, Batch
from tests.conformance.formula import Formula, Pass
from tests.conformance.pool import Request, first_turns, second_turns
from tests.engine.engine import Engine
from trimtab.vectors import Registry

TIE = 1e-3
"""Where two tokens, or two rows of a gate, are less than this apart, either may win: sums round by the batch."""

_SECOND_TURNS = 0.1  # of the pool

Tick = Callable[[], object]


@dataclass(frozen=True)
class Alone:
    """A request that has the engine to itself. leads: of each token's logit over the second best."""

    prompt: list[int]
    tokens: list[int]
    leads: list[float]


@dataclass(frozen=True)
class Difference:
    """A request that was told something else in a batch than alone, or by the formula.

    batch: None for the formula. place: in the batch. at: the first token that differs. lead, routing: by how much the
    closest two tokens there, and the closest gate up to there, were apart.
    """

    request: int
    batch: int | None
    place: int
    at: int
    alone: list[int]
    told: list[int]
    lead: float
    routing: float

    @property
    def tie(self) -> bool:
        return min(self.lead, self.routing) < TIE


@dataclass
class Tally:
    """What was seen in a series of batches. compared: requests; the aborted ones among them as far as they got."""

    batches: int = 0
    compared: int = 0
    tokens: int = 0
    aborted: int = 0
    preempted: int = 0
    with_preemptions: int = 0
    cached: int = 0
    steps: int = 0
    changed: int = 0
    noticed: int = 0
    differences: list[Difference] = field(default_factory=list)
    unnoticed: list[tuple[int, int]] = field(default_factory=list)

    @property
    def ties(self) -> list[Difference]:
        return [difference for difference in self.differences if difference.tie]

    @property
    def wrong(self) -> list[Difference]:
        return [difference for difference in self.differences if not difference.tie]


class Campaign:
    """Everything but the engine's settings: one campaign may be held against several engines."""

    def __init__(self, formula: Formula, registry: Registry, size: int, seed: int) -> None:
        self.registry = registry
        self.requests: list[Request] = first_turns(registry, size - int(size * _SECOND_TURNS), seed)
        self.alone: list[Alone] = []
        self._formula = formula
        self._size, self._seed = size, seed

    def ask_alone(self, engine: Engine, tick: Tick) -> None:
        """Ask for every request alone, once."""
        _know(engine, self.requests)
        self.alone = [_alone(engine, request, tick) for request in self.requests]
        told = [(alone.prompt, alone.tokens) for alone in self.alone]
        more = second_turns(self.registry, self.requests, told, self._size - len(self.requests), self._seed)
        _know(engine, more)
        self.requests += more
        self.alone += [_alone(engine, request, tick) for request in more]

    def unlike_unsteered(self, engine: Engine, tick: Tick) -> tuple[int, int]:
        """How many of the steered requests are told something else than without steering, and how many there are."""
        steered = [request for request in self.requests if request.steering]
        plain = [replace(request, number=len(self.requests) + request.number, steering=()) for request in steered]
        _know(engine, plain)
        unlike = 0
        for request, without in zip(steered, plain, strict=True):
            unlike += _alone(engine, without, tick).tokens != self.alone[request.number].tokens
        return unlike, len(steered)

    def check_formula(self, tick: Tick) -> list[Difference]:
        """The requests whose answer alone is not the formula's."""
        found = []
        for request, alone in zip(self.requests, self.alone, strict=True):
            seen = self._run(request, alone.tokens)
            predicted = seen.logits[len(alone.prompt) - 1 :]
            expected = predicted.argmax(axis=1).tolist()
            if expected != alone.tokens:
                at = _first_difference(expected, alone.tokens)
                best = np.sort(predicted[at])[-2:]
                routing = float(seen.routing[: len(alone.prompt) + at].min())
                lead = float(best[1] - best[0])
                found.append(Difference(request.number, None, 0, at, alone.tokens, expected, lead, routing))
            tick()
        return found

    def serve(self, engine: Engine, batches: Iterable[Batch], tick: Tick, fault: str | None = None) -> Tally:
        """Serve the batches one after the other and compare; with a fault of `mutations` in the worker, if asked."""
        engine.call("conformance", what="mutate", kind=fault)
        _know(engine, self.requests)
        tally = Tally()
        for batch in batches:
            reply = engine.call("conformance", what="serve", batch=batch.to_json())
            tally.batches += 1
            tally.aborted += len(reply["aborted"])
            tally.preempted += reply["preempted"]
            tally.with_preemptions += reply["preempted"] > 0
            tally.cached += reply["cached"]
            tally.steps += reply["steps"]
            self._compare(batch, reply, tally, margins=fault is None)
            tick()
        if fault is not None:
            engine.call("conformance", what="mutate", kind=None)
        return tally

    def _compare(self, batch: Batch, reply: Mapping[str, Any], tally: Tally, *, margins: bool) -> None:
        answers, aborted, changed = reply["told"], set(reply["aborted"]), set(reply["changed"])
        for place, (entry, told) in enumerate(zip(batch.entries, answers, strict=True)):
            alone = self.alone[entry.request]
            expected = alone.tokens[: len(told)] if place in aborted else alone.tokens
            tally.compared += 1
            tally.tokens += len(told)
            if place in changed and place not in aborted:
                tally.changed += 1
                tally.noticed += told != expected
                if told == expected:
                    tally.unnoticed.append((batch.number, entry.request))
            if told != expected:
                at = _first_difference(told, expected)
                lead = alone.leads[at] if at < len(alone.leads) else np.inf
                routing = self._routing(entry.request, at) if margins else np.inf  # costs a pass through the model
                found = Difference(entry.request, batch.number, place, at, alone.tokens, told, lead, routing)
                tally.differences.append(found)

    def _routing(self, number: int, at: int) -> float:
        alone = self.alone[number]
        seen = self._run(self.requests[number], alone.tokens[: at + 1])
        return float(seen.routing.min())

    def _run(self, request: Request, tokens: Sequence[int]) -> Pass:
        prompt = self.alone[request.number].prompt
        parts = [(self.registry[name], alpha) for name, alpha in request.steering]
        return self._formula.run([*prompt, *tokens[:-1]], len(prompt), request.scenes, parts)


def _know(engine: Engine, requests: Sequence[Request]) -> None:
    engine.call("conformance", what="know", requests=[request.to_json() for request in requests])


def _alone(engine: Engine, request: Request, tick: Tick) -> Alone:
    found = Alone(**engine.call("conformance", what="alone", request=request.number))
    tick()
    return found


def _first_difference(one: Sequence[int], other: Sequence[int]) -> int:
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def start(log: Path, model: Path, profiles: Path, **llm: Any) -> Engine:
    """The engine of a campaign: room for the largest batches, which each batch then narrows for itself."""
    room = {"max_num_seqs": RUNNING, "max_num_batched_tokens": TOKENS, "num_gpu_blocks_override": BLOCKS + 1}
    return Engine(log, model, profiles, **{**room, "enable_chunked_prefill": True, "disable_log_stats": True, **llm})
