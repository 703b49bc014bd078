"""A decision for a whole answer is made once, kept at a place of its own, and neither lost nor left to another."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tests.plugin.asked import SLOTS, once_from, part
from trimtab.plugin.model.tables import SteeringTables
from trimtab.plugin.requests.request import Steering
from trimtab.plugin.steps.batch import DECISION, SLOT
from trimtab.plugin.steps.decisions import SteeredRequest
from trimtab.vectors import ModelIdentity, Profile

AT_MOST = 3  # requests in a batch
LAYERS = (0, 4)


@dataclass(eq=False)
class Living:
    """A request of the simulation below."""

    number: int
    held: SteeredRequest
    parts: int
    once: frozenset[int]
    prompt: int
    length: int
    computed: int = 0
    reached: int = 0
    """The most positions that it has ever had computed."""


def chosen_by(request: Living, layer: int, part: int) -> int:
    """What its gate decides: a number that no other has."""
    return 1 + request.number * 64 + LAYERS.index(layer) * 8 + part


def tables() -> SteeringTables:
    found = SteeringTables(dict.fromkeys(LAYERS, 2), 9, 4, tokens=64, requests=AT_MOST)
    found.slots.update(SLOTS)
    return found


def arrival(rng: random.Random, number: int, worker: SteeringTables) -> Living:
    digests, prompt = sorted(rng.sample(sorted(SLOTS), rng.randint(1, 4))), rng.randint(1, 9)
    once = frozenset(index for index in range(len(digests)) if rng.random() < 0.7)
    parts = [once_from(d, prompt - 1) if index in once else part(d) for index, d in enumerate(digests)]
    held = worker.take(Steering(tuple(parts)))
    return Living(number, held, len(parts), once, prompt, prompt + rng.randint(0, 12))


def play(worker: SteeringTables, batch: list[Living | None], scheduled: list[int]) -> None:
    """One step, in which gates decide at the rows that say so, and every later row must find what was decided."""
    computed = [0 if request is None else request.computed for request in batch]
    held = [None if request is None else request.held for request in batch]
    worker.step(held, np.array(computed, np.int32), np.array(scheduled, np.int32))
    rows, row = worker.tokens.entries.numpy(), 0
    places: set[int] = set()
    for request, n in zip(batch, scheduled, strict=True):
        for position in range(request.computed if request else 0, (request.computed if request else 0) + n):
            if request is not None:
                for index in range(request.parts):
                    place = int(rows[row, DECISION, index])
                    if index not in request.once:
                        assert place == 0
                    elif position < request.prompt - 1:
                        assert rows[row, SLOT, index] == 0
                    else:
                        assert place != 0
                        assert abs(place) not in places
                        # Undecided exactly where the last prompt position has never been computed before.
                        assert (place < 0) == (request.reached < request.prompt)
                        for layer in LAYERS:
                            decided = worker.layers[layer].decided
                            if place < 0:
                                decided[-place] = chosen_by(request, layer, index)
                            assert decided[abs(place)] == chosen_by(request, layer, index)
            row += 1
        if request is not None:
            last = rows[row - 1]
            places |= {abs(int(last[DECISION, index])) for index in request.once if last[SLOT, index]}
            request.computed += n
            request.reached = max(request.reached, request.computed)


@pytest.mark.parametrize("seed", range(3))
def test_no_decision_is_lost_or_mixed_up_and_no_place_leaks_in_thousands_of_steps(seed: int) -> None:
    rng, worker = random.Random(seed), tables()
    living: list[Living] = []
    arrived = 0
    for _ in range(1500):
        while len(living) < 2 * AT_MOST:  # twice as many as fit: the others wait, new or preempted
            living.append(arrival(rng, arrived, worker))
            arrived += 1
        running = rng.sample(living, rng.randint(0, AT_MOST)) if rng.random() < 0.3 else living[:AT_MOST]
        for request in living:
            if request not in running and request.computed and rng.random() < 0.5:  # preempted
                request.computed = rng.choice([0, rng.randint(0, min(request.reached, request.length - 1))])
        batch: list[Living | None] = list(running)
        scheduled = []
        for request in running:
            # A chunk ends at the prompt's end at the latest, until that has been computed once.
            most = (request.length if request.reached >= request.prompt else request.prompt) - request.computed
            scheduled.append(1 if request.computed >= request.reached >= request.prompt else rng.randint(1, most))
        if len(batch) < AT_MOST and rng.random() < 0.3:
            batch.append(None)
            scheduled.append(1)
        play(worker, batch, scheduled)
        living = [request for request in living if request.computed < request.length and rng.random() > 0.02]
        rng.shuffle(living)
    assert arrived > 200
    assert worker.layers[0].decided.max() > 64 * 200  # gates decided to the last


def test_a_request_that_is_out_of_the_batch_holds_no_place_and_comes_back_with_what_each_layer_decided() -> None:
    worker = tables()
    one, other = (worker.take(Steering((once_from("a", 2), once_from("b", 2)))) for _ in range(2))
    prompt, decode = np.array([3]), np.array([1])
    worker.step([one], np.array([0]), prompt)
    for layer, table in worker.layers.items():
        table.decided[list(one.decision_slots)] = torch.tensor([10 + layer, 20 + layer], dtype=torch.int32)
    worker.step([other], np.array([0]), prompt)
    assert not one.decision_slots
    for table in worker.layers.values():
        table.decided.fill_(77)  # whoever has the places now
    worker.step([other, one], np.array([3, 0]), np.array([1, 5]))  # it is computed again from its start
    assert not set(one.decision_slots) & set(other.decision_slots)
    assert worker.tokens.entries[1:6, DECISION, 0].tolist() == [0, 0, *[one.decision_slots[0]] * 3]
    for layer, table in worker.layers.items():
        assert table.decided[list(one.decision_slots)].tolist() == [10 + layer, 20 + layer]
        assert table.decided[list(other.decision_slots)].tolist() == [77, 77]
    worker.step([one], np.array([5]), decode)
    assert not other.decision_slots


def test_a_request_that_left_before_its_prompt_ended_decides_when_it_is_back() -> None:
    worker = tables()
    one = worker.take(Steering((once_from("a", 5),)))
    worker.step([one], np.array([0]), np.array([4]))
    worker.step([None], np.array([0]), np.array([1]))
    worker.step([one], np.array([0]), np.array([6]))
    assert worker.tokens.entries[:7, DECISION, 0].tolist() == [0] * 5 + [-one.decision_slots[0], 0]
    worker.step([one], np.array([6]), np.array([1]))
    assert worker.tokens.entries[0, DECISION, 0].item() == one.decision_slots[0]


def test_a_request_whose_gates_decide_at_every_token_takes_no_place() -> None:
    worker = tables()
    one = worker.take(Steering((part("a"), part("b"))))
    worker.step([one], np.array([0]), np.array([3]))
    assert one.decision_slots == ()
    assert not worker.tokens.entries[:, DECISION].any()


def test_a_full_batch_of_the_largest_requests_has_places() -> None:
    worker = tables()
    batch = [worker.take(Steering(tuple(once_from(digest, 0) for digest in "abcd"))) for _ in range(AT_MOST)]
    worker.step(batch, np.zeros(AT_MOST, np.int32), np.ones(AT_MOST, np.int32))
    places = [place for request in batch for place in request.decision_slots]
    assert len(set(places)) == 4 * AT_MOST
    assert 0 not in places
    assert max(places) < len(worker.layers[0].decided)


def test_a_dummy_run_after_a_step_that_decided_decides_nothing() -> None:
    model = ModelIdentity(architecture="LlamaForCausalLM", hidden_size=4, num_layers=1)
    rows = np.eye(2, 4, dtype=np.float32)
    profile = Profile.fine("p", {0: (rows, rows)}, model=model)
    worker = SteeringTables({0: 5}, 3, 4, tokens=4, requests=1)
    worker.load(profile)
    request = worker.take(Steering((once_from(profile.digest, 2),)))
    first, second = (torch.from_numpy(rows[k : k + 1]).expand(3, 4).contiguous() for k in range(2))
    layer, nothing = worker.layers[0], torch.zeros(3, 4)
    worker.step([request], np.array([0]), np.array([3]))
    assert layer(first, nothing)[2].tolist() == rows[0].tolist()
    worker.tokens.clear()
    assert not layer(second, nothing).any()
    worker.step([request], np.array([3]), np.array([1]))
    assert layer(second[:1], nothing[:1])[0].tolist() == rows[0].tolist()
