"""Profiles and policies that several tests share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from textwrap import dedent

from tests.plugin.conftest import DEPTH
from trimtab.plugin.control.policy import Policy, parse_policy
from trimtab.vectors import AlphaRange, ModelIdentity, Profile, Registry, SteeringVector

WIDE = AlphaRange(default=1.0, min=-4.0, max=4.0)
KEYS = {"team-a": "key of a", "team-b": "key of b", "gateway": "key of the gateway"}


@dataclass(frozen=True)
class Served:
    registry: Registry | None
    disabled: Mapping[str, str] = field(default_factory=dict)


def digest_of(key: str) -> str:
    return "sha256:" + sha256(key.encode()).hexdigest()


def small_registry(model: ModelIdentity) -> Registry:
    """safe and its opposite, a slanted one, one across, and one whose typical state is not known."""

    def one(name: str, *vectors: tuple[int, list[float]], hidden: float | None = 10.0) -> Profile:
        known = {} if hidden is None else {layer: hidden for layer, _ in vectors}
        made = [SteeringVector(layer, values) for layer, values in vectors]
        return Profile.coarse(name, made, model=model, alpha=WIDE, hidden_norms=known)

    return Registry(
        [
            one("safe", (1, [0.0, 3.0, 0.0, 4.0])),
            one("reckless", (1, [0.0, -3.0, 0.0, -4.0])),
            one("early", (0, [0.0, -3.0, 0.0, -4.0])),
            one("slanted", (1, [5.0, -0.5, 0.0, 0.0]), (DEPTH - 1, [1.0, 0.0, 0.0, 0.0])),
            one("across", (1, [2.0, 0.0, 2.0, 0.0])),
            one("style-plain", (1, [0.0, 0.0, 1.0, 0.0])),
            one("unmeasured", (1, [0.5, 0.0, 0.5, 0.0]), hidden=None),
        ]
    )


def policy_of(text: str, registry: Registry | None = None) -> Policy:
    """A policy from YAML without `version`, `KEYS` by name in angle brackets."""
    body = dedent(text)
    for name, key in KEYS.items():
        body = body.replace(f"<{name}>", digest_of(key))
    return parse_policy(("version: 1\n" + body).encode(), registry)
