"""A fast share of `make reliability`, on one server. What a part finds wrong, in sentences, is what fails here."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.reliability.parts import bypass
from tests.reliability.served import policy, shared

pytestmark = pytest.mark.engine

# By part: the share that takes a few seconds, and what must not be nothing.
SHARES = {
    "doors": (0.1, ("steered", "refused")),
    "access": (0.05, ("served", "refused")),
    "bypass": (0.02, ("served", "refused")),
    "hostile": (0.05, ("refused",)),
    "secrets": (0.02, ("answers", "files")),
    "schemathesis": (0.02, ("positive", "negative")),
    "reload": (0.02, ("requests",)),
    "faults": (0.2, ("half_written",)),
}


# Two engines more, which take two minutes to start.
SLOW = {"replicas": (0.02, ("requests", "updates", "envoy"))}


@pytest.mark.slow
@pytest.mark.parametrize("part", SLOW)
def test_a_share_of_a_slow_part_finds_nothing_wrong(part: str, work: Path) -> None:
    _try(part, *SLOW[part], work)


@pytest.mark.parametrize("part", SHARES)
def test_a_share_of_a_part_finds_nothing_wrong(part: str, work: Path) -> None:
    _try(part, *SHARES[part], work)


def _try(part: str, share: float, counted: tuple[str, ...], work: Path) -> None:
    found: dict[str, Any] = import_module(f"tests.reliability.parts.{part}").run(work, share)
    assert found["wrong"] == []
    assert all(found[name] for name in counted)


def test_a_policy_that_enforces_nothing_does_not_pass_for_one_that_does(work: Path) -> None:
    server = shared(work)
    server.govern(policy(enforced=[]))
    try:
        found = bypass.attack(server, 20)
    finally:
        server.govern(policy())
    assert found["bypassed"] > 0
    assert found["served"] == 0
