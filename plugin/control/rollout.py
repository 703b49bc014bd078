"""Changes to what a server serves, whoever asks: an admin route, a rescan or a desired state.

Each is made under the lock of the state folder, becomes visible in one rename, and leaves a line in the audit log. What
fails leaves the last generation as it was.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from trimtab.vectors import ModelIdentity, Profile, Registry
from trimtab.vectors.errors import RequestError, TrimtabError
from trimtab.vectors.experiments import Plan, read_plan

from ..errors import StartupError
from .audit import JsonLines
from .experiments.fits import misnamed
from .experiments.held import check_plan, keep_plan
from .generation import Generation, Resident, Version
from .policy import parse_policy
from .policy.held import check_file
from .sources import Mirror
from .state import State

__all__ = ["Rollout"]

logger = logging.getLogger("vllm.trimtab")

AUDIT_FILE = "audit.jsonl"
Stage = Callable[[str, str, list[str]], Awaitable[Any]]
"""Brings a version into every worker: name, content digest, the digests that must stay. Raises unless all hold it."""

_NOBODY = Resident()
_PATIENCE = 120.0  # seconds for all workers to load a version
_PREFIX = re.compile(r"^(Call to \w+ method failed: |Worker failed with error '|\w+Error: )+")
_SUFFIX = re.compile(r"', please check the stack trace above for the root cause$")
_CHANGES = Counter("trimtab_changes", "Changes to what is served, by action and result.", ["action", "result"])
for _action in ("stage", "activate", "serve", "unload", "disable", "enable", "policy", "experiments"):
    for _result in ("done", "nothing to do", "refused"):
        _CHANGES.labels(_action, _result)  # from zero on, so that the first one is an increase


class Rollout:
    """The changes to one server.

    Args:
        state: its folder. profiles: its registry folder. model: what every profile must be made for.
        stage: see `Stage`. mirror: what `profiles` is a copy of, or None.
    """

    def __init__(
        self, state: State, profiles: Path, model: ModelIdentity, stage: Stage, mirror: Mirror | None = None
    ) -> None:
        self.state = state
        self.profiles = profiles
        self._model = model
        self._stage = stage
        self._mirror = mirror
        self._audit = JsonLines(state.folder / AUDIT_FILE)

    async def pull(self, only: str | None = None) -> list[str]:
        """Bring the folder, or one profile in it, up to date where it is a copy. Returns what went wrong."""
        return [] if self._mirror is None else await asyncio.to_thread(self._mirror.pull, only)

    async def stage(self, name: str, who: str, digest: str = "") -> Generation:
        """Make the version of a profile that lies in the folder resident, beside the active one.

        digest: what its digest must begin with (hex).

        Raises:
            RequestError: 409 with the reason why it cannot be; the active version stays.
        """
        async with self._changing("stage", name, who) as change:
            return change.publish(await self._staged(change, name, digest))

    async def activate(self, name: str, who: str, digest: str | None = None) -> Generation:
        """Let a profile's name mean its other resident version. The same again goes back.

        digest: what the active version shall begin with (hex), or None for the other one.
        """
        async with self._changing("activate", name, who) as change:
            return change.publish(change.before.activated(name, digest))

    async def serve(self, name: str, who: str, digest: str = "") -> Generation:
        """`stage`, and let the profile's name mean that version."""
        async with self._changing("serve", name, who) as change:
            generation = await self._staged(change, name, digest)
            assert change.staged is not None
            return change.publish(generation.serving(name, change.staged))  # the two in one step

    async def unload(self, name: str, who: str) -> Generation:
        """Take a profile out. Its rows are used again once no request needs them."""
        async with self._changing("unload", name, who) as change:
            return change.publish(change.before.unloaded(name))

    async def disable(self, name: str, reason: str, who: str) -> Generation:
        """Refuse requests that name a profile, with a reason, at once."""
        async with self._changing("disable", name, who) as change:
            return change.publish(change.before.without(name, reason))

    async def enable(self, name: str, who: str) -> Generation:
        """End that."""
        async with self._changing("enable", name, who) as change:
            return change.publish(change.before.enabled(name))

    async def govern(self, policy: Path, resident: Mapping[str, Profile], who: str) -> Generation:
        """Follow the file of the access policy, if it changed. resident: every profile that is loaded, by digest.

        Raises:
            RequestError: 409 with what is wrong, by line; the last policy stays.
        """
        async with self._changing("policy", policy.name, who) as change:
            data = await asyncio.to_thread(check_file, policy, _active(change.before, resident))
            if said := list(misnamed(parse_policy(data), self._plan(change.before))):
                raise StartupError(f"the access policy {policy.name} cannot be used: {'; '.join(said)}")
            return change.publish(change.before.with_policy(self.state.keep_policy(data)))

    async def experiment(self, file: Path, resident: Mapping[str, Profile], who: str) -> Generation:
        """Follow the file of the plan of experiments, as `govern`.

        Raises:
            RequestError: 409 with what is wrong; the last plan stays.
        """
        async with self._changing("experiments", file.name, who) as change:
            before = change.before
            policy = None if before.policy is None else parse_policy(self.state.policy(before.policy))
            registry = _active(before, resident)
            data, plan = await asyncio.to_thread(check_plan, file, registry, policy, self._plan(before), self.state)
            if policy is not None and (said := list(misnamed(policy, plan))):
                raise StartupError(f"the plan of experiments {file.name} cannot be used: {'; '.join(said)}")
            return change.publish(before.with_experiments(keep_plan(self.state, data, plan)))

    def _plan(self, generation: Generation) -> Plan | None:
        return None if generation.experiments is None else read_plan(self.state.plan(generation.experiments))

    async def _staged(self, change: _Change, name: str, digest: str) -> Generation:
        """The generation to publish, once every worker holds the version that lies in the folder."""
        profile = await asyncio.to_thread(Registry.open_one, self.profiles, name, self._model)
        version = change.staged = Version.of(profile)
        if not version.digest.startswith(digest):
            raise RequestError(
                f"the folder holds version sha256:{version.digest[:12]} of profile {name!r} and not "
                f"sha256:{digest[:12]}; copy that version there first",
                param="digest",
                status=409,
            )
        generation = change.before
        if version in generation.profiles.get(name, _NOBODY).versions:
            return generation
        # Before any row is used again, no new request may name the version that loses its place.
        generation = change.publish(generation.without_other(name))
        await asyncio.to_thread(self.state.keep, profile)
        async with asyncio.timeout(_PATIENCE):
            await self._stage(name, version.content, sorted(generation.resident))
        return generation.staged(name, version)

    @asynccontextmanager
    async def _changing(self, action: str, name: str, who: str) -> AsyncIterator[_Change]:
        async with self.state.changing():
            change = _Change(self.state, self.state.read())
            try:
                yield change
            except TrimtabError as error:
                self._note(action, name, who, change, str(error))
                if isinstance(error, RequestError):
                    raise
                raise RequestError(str(error), param="name", status=409) from error
            except Exception as error:  # of a worker, which vLLM hands on as a bare Exception
                self._note(action, name, who, change, _said(error))
                raise RequestError(f"a worker refused: {_said(error)}", param="name", status=409) from error
            self._note(action, name, who, change, "done" if change.made else "nothing to do")
            self.state.forget(change.after)

    def _note(self, action: str, name: str, who: str, change: _Change, result: str) -> None:
        _CHANGES.labels(action, result if result in ("done", "nothing to do") else "refused").inc()
        line: dict[str, Any] = {
            "event": action,
            "who": who,
            "profile": name,
            "from": _digests(change.before, name),
            "to": _digests(change.after, name),
            "generation": change.after.counter,
            "result": result,
        }
        try:
            logger.info("trimtab: %s", self._audit.write(**line))
        except OSError as error:
            logger.error("trimtab: the audit log cannot be written (%s): %s", error, line)


class _Change:
    """One change while it is made."""

    def __init__(self, state: State, before: Generation) -> None:
        self._state = state
        self.before = self.after = before
        self.staged: Version | None = None

    @property
    def made(self) -> bool:
        return self.after.counter != self.before.counter

    def publish(self, generation: Generation) -> Generation:
        """Let every process see it, unless it is what they see."""
        if generation.counter != self.after.counter:
            self._state.publish(generation)
            self.after = generation
        return generation


def _active(generation: Generation, resident: Mapping[str, Profile]) -> Registry:
    digests = [one.active.digest for one in generation.profiles.values() if one.active is not None]
    return Registry(resident[digest] for digest in digests if digest in resident)


def _digests(generation: Generation, name: str) -> dict[str, str | None]:
    one = generation.profiles.get(name, _NOBODY)
    return {
        "active": None if one.active is None else one.active.digest,
        "other": None if one.other is None else one.other.digest,
    }


def _said(error: Exception) -> str:
    """What a worker said, without what vLLM puts around it."""
    text = _PREFIX.sub("", str(error))
    return _SUFFIX.sub("", text).strip() or f"it gave no reason ({type(error).__name__})"
