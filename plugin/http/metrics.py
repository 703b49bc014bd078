"""Counters on vLLM's own /metrics. Label values come only from registered names, never from a request."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import Counter

from trimtab.vectors.asked import NONE

__all__ = ["announce", "count"]

_REQUESTS = Counter("trimtab_requests", "Requests accepted, by steering profile.", ["profile"])  # exposed as …_total


def announce(profiles: Iterable[str] | None) -> None:
    """Show every profile with a zero from the start, so that a rate over a rare one is not missing."""
    for name in (NONE, *(profiles or ())):
        _REQUESTS.labels(name)


def count(profile: str) -> None:
    """Count one admitted request; one of several prompts counts once per prompt."""
    _REQUESTS.labels(profile).inc()
