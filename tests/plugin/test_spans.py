"""Where vLLM traces, each request has a span that says what it was given. The spans are OpenTelemetry's own."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from vllm.v1.engine import FinishReason
from vllm.v1.engine.output_processor import OutputProcessor

from tests.plugin.test_finished import ABOUT, Front
from trimtab.plugin.control import finished, spans
from trimtab.plugin.control.finished import About
from trimtab.plugin.requests.decided import Entered, Governed
from trimtab.vectors import Profile

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
ENTERED = Entered("exp-1", "doses", "s-1", "weak", "a-pseudonym", "user", "named", False, "a-plan")


@pytest.fixture(autouse=True)
def _installed() -> Iterator[None]:
    for _ in range(2):  # safe to do again
        finished.install()
        spans.install()
    yield
    finished.listeners.clear()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)  # which can be set once per process
    return exporter


def ended(about: About | None, *, tracing: bool = True, **more: Any) -> None:
    """A request that was given this, from its first token to its last."""
    front = Front()
    front.processor = OutputProcessor(None, log_stats=True, tracing_enabled=tracing)
    front.add("a", about, external="chatcmpl-1")
    front.begin("a")
    front.step("a", 1, FinishReason.STOP, at=106.0, **more)


def ours(spans_written: Sequence[ReadableSpan]) -> ReadableSpan:
    [one] = [span for span in spans_written if span.name == spans.SPAN]
    return one


def test_it_stands_beside_vllms_span_and_says_what_was_given(written: InMemorySpanExporter, coarse: Profile) -> None:
    chosen = Governed(((coarse, 0.5),))
    chosen.entered = ENTERED
    ended(About(chosen, "doses", "weak", "exp-1"), trace_headers=PARENT)
    [theirs] = [span for span in written.get_finished_spans() if span.name == "llm_request"]
    one = ours(written.get_finished_spans())
    assert one.context is not None
    assert one.parent == theirs.parent is not None
    assert f"{one.context.trace_id:032x}" == TRACE
    assert one.start_time == theirs.start_time
    assert dict(one.attributes or {}) == {
        "trimtab.profiles": ("polite",),
        "trimtab.alphas": (0.5,),
        "trimtab.digests": (coarse.digest,),
        "trimtab.exposure_id": "exp-1",
        "trimtab.served": "named",
        "feature_flag.key": "doses",
        "feature_flag.result.variant": "weak",
        "feature_flag.result.reason": "split",
        "feature_flag.context.id": "a-pseudonym",
        "feature_flag.provider.name": "trimtab",
        "gen_ai.request.id": "chatcmpl-1",
    }


def test_a_forced_arm_is_in_no_experiment(written: InMemorySpanExporter, coarse: Profile) -> None:
    chosen = Governed(((coarse, 0.5),))
    chosen.entered = ENTERED
    ended(About(chosen, "", "", "exp-1"))
    told = ours(written.get_finished_spans()).attributes or {}
    assert not [name for name in told if name.startswith("feature_flag")]


def test_an_unsteered_request_has_one_too_and_one_that_is_not_ours_has_none(written: InMemorySpanExporter) -> None:
    ended(About(()))
    assert (ours(written.get_finished_spans()).attributes or {})["trimtab.profiles"] == ()
    written.clear()
    ended(None)
    assert [span.name for span in written.get_finished_spans()] == ["llm_request"]


def test_without_tracing_nothing_is_written(written: InMemorySpanExporter) -> None:
    ended(ABOUT, tracing=False)
    assert written.get_finished_spans() == ()


def test_a_span_that_cannot_be_written_ends_no_request(
    written: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(about: About) -> dict[str, Any]:
        raise RuntimeError("no")

    monkeypatch.setattr(spans, "attributes_of", fail)
    monkeypatch.setattr(logging.getLogger("vllm"), "propagate", True)
    ended(ABOUT)
    assert "a span could not be written" in caplog.text
