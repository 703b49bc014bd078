"""What a request gets: from what it asks for (`trimtab.vectors.asked`) to a resolved `Steering`.

Pure: neither vLLM nor torch. Every error is a `RequestError` that names the field, what is allowed and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from trimtab.vectors import Profile, Registry
from trimtab.vectors.asked import Asked
from trimtab.vectors.errors import RequestError

from .decided import Governed
from .kv import kv_key
from .positions import Spans, spans_of

__all__ = ["Part", "Steering", "choose", "no_positions", "resolve"]


@dataclass(frozen=True, slots=True)
class Part:
    """One profile of a steered request. Plain values: it crosses processes."""

    digest: str
    alpha: float
    spans: Spans
    """The steered positions, see `positions`."""
    kv_key: str | None
    """What the KV of steered positions depends on beside their tokens; None where this part changes no KV."""
    once: bool
    """Whether the gate decides at the first steered position for all of them (`gate.scope` "sequence")."""


@dataclass(frozen=True, slots=True)
class Steering:
    """What the worker and the KV cache need to know of one steered request.

    parts: up to MOST_PROFILES, in an order that does not depend on the request's, so that sums round alike.
    """

    parts: tuple[Part, ...]

    def to_wire(self) -> list[dict[str, Any]]:
        return [{name: getattr(part, name) for name in Part.__slots__} for part in self.parts]

    @classmethod
    def of_wire(cls, wire: Sequence[Mapping[str, Any]]) -> Steering:
        return cls(tuple(Part(**{**part, "spans": tuple(map(tuple, part["spans"]))}) for part in wire))


def choose(asked: Sequence[Asked], registry: Registry | None) -> list[tuple[Profile, float]]:
    """The profiles and strengths that a request asks for, in its order.

    Raises:
        UnknownProfileError: no such profile is loaded (the nearest name is suggested).
        RequestError: that version of it is not loaded.
        AlphaError: the strength is no finite number or outside the profile's range.
    """
    if asked and registry is None:
        raise RequestError(
            "this server was started without steering profiles; leave `steering` out, or start it with "
            "--steering-profiles DIR",
            param="steering",
        )
    return [_choose_one(one, registry) for one in asked if registry is not None]


def _choose_one(asked: Asked, registry: Registry) -> tuple[Profile, float]:
    profile = registry.find(asked.profile, asked.version)
    alphas = profile.manifest.alpha
    return profile, alphas.check(alphas.default if asked.alpha is None else asked.alpha)


def resolve(chosen: Sequence[tuple[Profile, float]], *, prompt_length: int, pictures: Spans = ()) -> Steering:
    """Fix everything about a steered request, given its tokenised prompt: its length (≥ 1) and where pictures lie.

    chosen: as `choose` gives it, at least one. Of what the server adds by itself (`Governed`), a profile for positions
        that this prompt does not have is left out: there is nothing for it to act on.

    Raises:
        RequestError: a profile steers positions which this prompt does not have.
    """
    asked = len(chosen) - (chosen.added if isinstance(chosen, Governed) else 0)
    parts = [
        _part(profile, alpha, prompt_length, pictures)
        for index, (profile, alpha) in enumerate(chosen)
        if index < asked or spans_of(profile.manifest.positions, prompt_length, pictures)
    ]
    return Steering(tuple(sorted(parts, key=lambda part: (part.digest, part.alpha))))


def no_positions(profile: Profile) -> RequestError:
    """The error for a profile that steers positions which a prompt does not have."""
    positions = profile.manifest.positions
    return RequestError(
        f"profile {profile.name!r} steers positions {positions!r}, and this prompt has none; "
        + ("send it with a picture" if positions == "image" else "send a longer prompt")
        + ", or choose a profile for other positions"
    )


def _part(profile: Profile, alpha: float, prompt_length: int, pictures: Spans) -> Part:
    manifest = profile.manifest
    spans = spans_of(manifest.positions, prompt_length, pictures)
    if not spans:
        raise no_positions(profile)
    once = manifest.gate is not None and manifest.gate.scope == "sequence"
    return Part(profile.digest, alpha, spans, kv_key(profile, alpha), once)
