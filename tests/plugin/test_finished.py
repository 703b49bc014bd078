"""Each admitted request is told of once, when it ends, whatever ends it: vLLM's own front end hands on its outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from copy import copy
from typing import Any

import pytest
from vllm.sampling_params import SamplingParams
from vllm.v1.engine import EngineCoreEvent, EngineCoreEventType, EngineCoreOutput, EngineCoreRequest, FinishReason
from vllm.v1.engine.output_processor import OutputProcessor
from vllm.v1.engine.parallel_sampling import ParentRequest
from vllm.v1.metrics.stats import IterationStats, PrefillStats

from trimtab.plugin.control import finished
from trimtab.plugin.control.finished import About, Finish

PROMPT = 7
_STATS: Any = IterationStats  # it has no types
ABOUT = About((), experiment="e", variation="v", exposure_id="exp-1")


class Front:
    """vLLM's front end of one API process, without an engine behind it. told: what the listener heard."""

    def __init__(self, *, log_stats: bool = True) -> None:
        self.processor = OutputProcessor(None, log_stats=log_stats)
        self.told: list[tuple[About, Finish]] = []
        finished.listeners[:] = [lambda about, finish: self.told.append((about, finish))]

    def add(self, name: str, about: About | None, *, external: str = "", n: int = 1) -> list[str]:
        """One request, as `AsyncLLM.add_request` adds it. Returns the names of its sequences."""
        params = SamplingParams(n=n, detokenize=False, max_tokens=9)
        if about is not None:
            finished.follow(params, about)
        request = EngineCoreRequest(
            request_id=name,
            external_req_id=external or name,
            prompt_token_ids=list(range(PROMPT)),
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=time.time(),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        if n == 1:
            self.processor.add_request(request, None)
            return [name]
        parent, names = ParentRequest(request), []
        for index in range(n):
            child = copy(request)
            child.request_id, child.sampling_params = parent.get_child_info(index)
            self.processor.add_request(child, None, parent, index)
            names.append(child.request_id)
        return names

    def step(self, name: str, tokens: int, finish: FinishReason | None = None, at: float = 0.0, **more: Any) -> None:
        """The output of one step of the engine."""
        output = EngineCoreOutput(request_id=name, new_token_ids=[5] * tokens, finish_reason=finish, **more)
        stats = _STATS() if self.processor.log_stats else None
        self.processor.process_outputs([output], at, stats)

    def begin(self, name: str, cached: int = 0) -> None:
        """Its first token, two seconds after it was queued and one after it was scheduled."""
        prefill = PrefillStats()
        prefill.set(num_prompt_tokens=PROMPT, num_local_cached_tokens=cached, num_external_cached_tokens=0)
        kinds = (EngineCoreEventType.QUEUED, 100.0), (EngineCoreEventType.SCHEDULED, 101.0)
        events = [EngineCoreEvent(kind, at) for kind, at in kinds]
        self.step(name, 1, at=102.0, prefill_stats=prefill, events=events)


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    finished.install()
    finished.install()  # safe to call again: nothing is told twice
    yield
    finished.listeners.clear()


def test_a_request_that_stops_is_told_with_its_numbers() -> None:
    front = Front()
    front.add("a", ABOUT)
    front.begin("a", cached=4)
    front.step("a", 1, at=103.0)
    assert front.told == []
    front.step("a", 1, FinishReason.STOP, at=106.0)
    ((whom, finish),) = front.told
    assert whom == ABOUT
    assert (finish.reason, finish.prompt_tokens, finish.generated_tokens, finish.cached_tokens) == (
        "stop",
        PROMPT,
        3,
        4,
    )
    assert (finish.queue_s, finish.per_token_s) == (1.0, 2.0)
    assert finish.first_token_s is not None
    assert finish.e2e_s is not None
    assert 0 <= finish.first_token_s <= finish.e2e_s


@pytest.mark.parametrize(
    "reason", [FinishReason.LENGTH, FinishReason.ERROR, FinishReason.ABORT], ids=["length", "error", "abort"]
)
def test_the_reason_is_vllms_word(reason: FinishReason) -> None:
    front = Front()
    front.add("a", ABOUT)
    front.step("a", 1, reason)
    assert [finish.reason for _, finish in front.told] == [str(reason)]


def test_an_aborted_request_is_told_with_what_it_had() -> None:
    front = Front()
    front.add("a", ABOUT)
    front.begin("a")
    front.processor.abort_requests(["a"], internal=True)
    ((_, finish),) = front.told
    assert (finish.reason, finish.generated_tokens, finish.per_token_s) == ("abort", 1, None)


def test_a_request_aborted_in_the_queue_has_no_times_but_its_last() -> None:
    front = Front()
    front.add("a", ABOUT)
    front.processor.abort_requests(["a"], internal=True)
    ((_, finish),) = front.told
    assert (finish.queue_s, finish.first_token_s, finish.per_token_s) == (None, None, None)
    assert finish.e2e_s is not None


def test_an_abort_that_comes_too_late_tells_nothing_more() -> None:
    front = Front()
    front.add("a", ABOUT)
    front.step("a", 1, FinishReason.STOP)
    front.processor.abort_requests(["a"], internal=True)  # a client that leaves after the last token
    assert [finish.reason for _, finish in front.told] == ["stop"]


def test_requests_of_one_id_are_told_apart() -> None:
    """X-Request-Id is the client's, and may repeat."""
    front = Front()
    first, second = About((), exposure_id="exp-1"), About((), exposure_id="exp-2")
    front.add("a-1", first, external="same")
    front.add("a-2", second, external="same")
    front.step("a-2", 1, FinishReason.LENGTH)
    front.step("a-1", 1, FinishReason.STOP)
    assert [(whom, finish.reason) for whom, finish in front.told] == [(second, "length"), (first, "stop")]


def test_all_requests_of_an_id_that_is_aborted_are_told() -> None:
    front = Front()
    for name in ("a-1", "a-2"):
        front.add(name, ABOUT, external="same")
    front.processor.abort_requests(["same"], internal=False)
    assert [finish.reason for _, finish in front.told] == ["abort", "abort"]


def test_several_sequences_are_one_request() -> None:
    front = Front()
    one, two, three = front.add("a", ABOUT, n=3)
    front.begin(one)
    front.begin(two, cached=6)
    front.begin(three, cached=6)
    front.step(one, 1, FinishReason.STOP, at=103.0)
    front.step(three, 2, FinishReason.STOP, at=103.0)
    assert front.told == []
    front.step(two, 3, FinishReason.LENGTH, at=105.0)
    ((whom, finish),) = front.told
    assert whom == ABOUT
    assert (finish.reason, finish.prompt_tokens, finish.generated_tokens) == ("length", PROMPT, 2 + 3 + 4)
    assert finish.cached_tokens == 0  # what the second found there, the first had written


def test_several_sequences_are_aborted_as_one() -> None:
    front = Front()
    one, *_ = front.add("a", ABOUT, n=3)
    front.step(one, 1, FinishReason.STOP)
    front.processor.abort_requests(["a"], internal=True)
    assert [finish.reason for _, finish in front.told] == ["abort"]


def test_without_statistics_tokens_and_reason_are_still_told() -> None:
    front = Front(log_stats=False)
    front.add("a", ABOUT)
    front.step("a", 2)
    front.step("a", 1, FinishReason.STOP)
    assert [finish for _, finish in front.told] == [Finish("stop", PROMPT, 3, 0)]


def test_requests_of_others_are_not_told() -> None:
    """Of an engine that did not ask, in the same process."""
    front = Front()
    front.add("a", None)
    front.step("a", 1, FinishReason.STOP)
    front.add("b", None)
    front.processor.abort_requests(["b"], internal=True)
    assert front.told == []


def test_nothing_is_followed_where_nobody_listens() -> None:
    params = SamplingParams()
    finished.follow(params, ABOUT)
    assert vars(params) == {}


def test_a_listener_that_fails_ends_no_request(caplog: pytest.LogCaptureFixture) -> None:
    """The caller hands on the outputs of every request of the process."""
    front = Front()
    logging.getLogger("vllm.trimtab").addHandler(caplog.handler)  # vLLM's loggers do not propagate

    def fail(about: About, finish: Finish) -> None:
        raise OSError("the disk is full")

    finished.listeners.insert(0, fail)
    front.add("a", ABOUT)
    front.step("a", 1, FinishReason.STOP)
    logging.getLogger("vllm.trimtab").removeHandler(caplog.handler)
    assert [finish.reason for _, finish in front.told] == ["stop"]
    assert "the disk is full" in caplog.text
