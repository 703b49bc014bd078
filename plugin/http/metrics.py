"""Counters on vLLM's own /metrics. Label values come only from registered names, never from a request."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter

from trimtab.vectors.asked import NONE

from ..control.authority import Told

__all__ = ["announce", "count", "count_decision"]

_REQUESTS = Counter("trimtab_requests", "Requests accepted, by steering profile.", ["profile"])  # exposed as …_total

_DECISIONS = Counter("trimtab_decisions", "Decisions of the access policy, by rule and outcome.", ["rule", "outcome"])


def announce(profiles: Iterable[str] | None) -> None:
    """Show every profile with a zero from the start, so that a rate over a rare one is not missing."""
    for name in (NONE, *(profiles or ())):
        _REQUESTS.labels(name)


def count(profile: str) -> None:
    """Count one admitted request; one of several prompts counts once per prompt."""
    _REQUESTS.labels(profile).inc()


def count_decision(told: Told) -> None:
    """Count one decision; one of several prompts counts once per prompt."""
    _DECISIONS.labels(told.rule, told.outcome).inc()
