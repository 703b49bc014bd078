"""What a request asks for, and what it gets: from the value of `steering` to a resolved `Steering`.

Pure: neither vLLM nor torch. Every error is a `RequestError` that names the field, what is allowed and the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trimtab.vectors import Profile, Registry
from trimtab.vectors.errors import RequestError

from .kv import kv_key

__all__ = ["NONE", "Asked", "Steering", "parse", "resolve"]

NONE = "none"
_FIELDS = ("profile", "alpha")
_FORMS = '"NAME", {"profile": "NAME", "alpha": 0.8} or "none"'


@dataclass(frozen=True, slots=True)
class Asked:
    """A well-formed wish: a profile by name, and a strength or None for the profile's default."""

    profile: str
    alpha: Any = None


@dataclass(frozen=True, slots=True)
class Steering:
    """What the worker and the KV cache need to know of one steered request. Plain values: it crosses processes."""

    profile: str
    digest: str
    alpha: float
    first: int
    """First steered position, counted from the prompt's start; every later position is steered as well."""
    kv_key: str | None
    """Extra key of the block that holds `first`; None where steering changes no KV, so that all blocks are shared."""

    def to_wire(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_wire(cls, wire: Mapping[str, Any]) -> Steering:
        return cls(**wire)


def parse(value: object) -> Asked | None:
    """Read the value of a `steering` field; None means unsteered.

    Raises:
        RequestError: any other form than a name, an object with `profile` and `alpha`, a list of one such, or "none".
    """
    if value is None or value == NONE:
        return None
    if isinstance(value, str):
        return Asked(value)
    if isinstance(value, list | tuple):
        if len(value) != 1:
            raise RequestError(
                f"steering with a list of {len(value)} is not served: one profile a request; write {_FORMS}",
                param="steering",
            )
        if isinstance(value[0], list | tuple):
            raise RequestError(f"steering is a list in a list; write {_FORMS}", param="steering")
        asked = parse(value[0])
        if asked is None:
            raise RequestError(f'"none" stands alone, not in a list; write {_FORMS}', param="steering")
        return asked
    if isinstance(value, Mapping):
        return _parse_object(value)
    raise RequestError(f"steering must be {_FORMS}, not {type(value).__name__}", param="steering")


def _parse_object(value: Mapping[Any, Any]) -> Asked:
    unknown = sorted(str(key) for key in value if key not in _FIELDS)
    if unknown:
        raise RequestError(
            f"unknown field {unknown[0][:80]!r} in steering; allowed: {', '.join(_FIELDS)}; write {_FORMS}",
            param=f"steering.{unknown[0][:80]}",
        )
    profile = value.get("profile")
    if not isinstance(profile, str):
        raise RequestError(f"steering.profile must be the name of a profile; write {_FORMS}", param="steering.profile")
    if profile == NONE:
        raise RequestError('"none" takes no strength: write "steering": "none"', param="steering.profile")
    if "alpha" in value and value["alpha"] is None:
        raise RequestError("steering.alpha must be a number; leave it out for the default", param="steering.alpha")
    return Asked(profile, value.get("alpha"))


def choose(asked: Asked, registry: Registry | None) -> tuple[Profile, float]:
    """The profile and strength that a wish stands for.

    Raises:
        UnknownProfileError: no such profile is loaded (the nearest name is suggested).
        AlphaError: the strength is no finite number or outside the profile's range.
    """
    if registry is None:
        raise RequestError(
            "this server was started without steering profiles; leave `steering` out, or start it with "
            "--steering-profiles DIR",
            param="steering",
        )
    profile = registry[asked.profile]
    alphas = profile.manifest.alpha
    return profile, alphas.default if asked.alpha is None else alphas.check(asked.alpha)


def resolve(asked: Asked, registry: Registry | None, *, prompt_length: int) -> Steering:
    """Fix everything about a steered request, given the length of its tokenised prompt (≥ 1).

    `answer` steers the positions that predict an answer token: the last prompt position and every later one. `all`
    steers every position. Both are "from `first` on", which chunked prefill, preemption and prefix hits do not change.
    """
    profile, alpha = choose(asked, registry)
    first = 0 if profile.manifest.positions == "all" else prompt_length - 1
    return Steering(profile.name, profile.digest, alpha, first, kv_key(profile, alpha, first))
