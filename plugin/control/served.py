"""What this process serves now: one stat of generation.json per question, and a read where it has changed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.vectors import Profile, Registry
from trimtab.vectors.errors import RequestError, TrimtabError

from ..config import SteeringConfig, open_registry
from .generation import Generation
from .state import Stamp, State

__all__ = ["Offer", "Served", "observers", "registry_now", "served"]

logger = logging.getLogger("vllm.trimtab")

_TRIES = 3

observers: list[Callable[[Generation, Served], None]] = []
"""Told what is served whenever it has changed, in the process that has seen it."""


class Offer(Registry):
    """The active profiles by name. It finds other resident versions by their digests, and says why one is disabled."""

    def __init__(
        self, profiles: Mapping[str, Profile], others: Mapping[str, Profile], disabled: Mapping[str, str]
    ) -> None:
        super().__init__(profile for name, profile in profiles.items() if name not in disabled)
        self._others, self._disabled = others, disabled

    def __getitem__(self, name: str) -> Profile:
        if name in self._disabled:
            raise RequestError(
                f"profile {name!r} is disabled: {self._disabled[name]}; ask again later, or name another profile",
                param="steering.profile",
                status=503,
            )
        return super().__getitem__(name)

    def find(self, name: str, version: str | None = None) -> Profile:
        """As `Registry.find`; a version may also be one that is resident and not active."""
        if version is not None and name not in self._disabled:
            mine = [self[name]] if name in self else []
            for profile in (*mine, *([self._others[name]] if name in self._others else [])):
                if profile.digest.startswith(version):
                    return profile
        return super().find(name, version)


@dataclass(frozen=True)
class Served:
    """What a server serves.

    counter, digest: of its generation. registry: the active profiles by name, see `Offer`. staged: every resident
    version by its digest. disabled: name → reason. policy, experiments: sha256 of their files, None without one.
    """

    counter: int
    digest: str
    registry: Registry
    staged: Mapping[str, Profile]
    disabled: Mapping[str, str] = field(default_factory=dict)
    policy: str | None = None
    experiments: str | None = None

    @classmethod
    def of(cls, generation: Generation, load: Callable[[str], Profile]) -> Served:
        """load: content digest → profile."""
        active = {name: load(one.active.content) for name, one in generation.profiles.items() if one.active}
        others = {name: load(one.other.content) for name, one in generation.profiles.items() if one.other}
        return cls(
            counter=generation.counter,
            digest=generation.digest,
            registry=Offer(active, others, generation.disabled),
            staged={profile.digest: profile for profile in (*others.values(), *active.values())},
            disabled=generation.disabled,
            policy=generation.policy,
            experiments=generation.experiments,
        )


class _Follower:
    """Follows the generation of one state folder."""

    def __init__(self, state: State, started: Registry) -> None:
        self._state = state
        self._known = {profile.content_digest: profile for profile in started.values()}
        self._seen: tuple[Stamp, Served | TrimtabError] | None = None

    def now(self) -> Served:
        found = self._look()
        for _ in range(_TRIES - 1):
            # Versions are deleted after the next generation is published: then that one can be read.
            if isinstance(found, Served) or (self._seen is not None and self._state.stamp() == self._seen[0]):
                break
            found = self._look()
        if isinstance(found, TrimtabError):
            raise found
        return found

    def _look(self) -> Served | TrimtabError:
        stamp = self._state.stamp()
        if self._seen is None or self._seen[0] != stamp:
            self._seen = (stamp, self._read())
        return self._seen[1]

    def _read(self) -> Served | TrimtabError:
        try:
            generation = self._state.read()
            self._known = {
                content: self._known[content] if content in self._known else self._state.load(content)
                for content in generation.contents
            }
            now = Served.of(generation, self._known.__getitem__)
        except TrimtabError as error:
            logger.error("trimtab: what is to be served cannot be read: %s", error)
            return error
        for tell in observers:
            tell(generation, now)
        return now


_followers: dict[str, _Follower] = {}


def served(vllm_config: Any) -> Served | None:
    """What an engine serves now; None for an engine without profiles. One stat, where nothing has changed.

    Raises:
        RequestError: 503, because generation.json cannot be read; nothing may be served without it.
    """
    config = SteeringConfig.of(vllm_config)
    if config is None:
        return None
    if not config.state:
        return _fixed(open_registry(config, vllm_config))
    follower = _followers.get(config.state)
    if follower is None:
        follower = _Follower(State(Path(config.state)), open_registry(config, vllm_config))
        _followers[config.state] = follower
    try:
        return follower.now()
    except TrimtabError as error:
        raise RequestError(
            f"this server does not know what it may serve: {error}", param="steering", status=503
        ) from error


def registry_now(vllm_config: Any) -> Registry | None:
    """The profiles that requests of an engine may name now, see `served`."""
    now = served(vllm_config)
    return None if now is None else now.registry


def _fixed(registry: Registry) -> Served:
    """Of an engine whose profiles cannot change."""
    return Served(0, registry.digest, registry, {profile.digest: profile for profile in registry.values()})
