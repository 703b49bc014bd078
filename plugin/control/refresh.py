"""Brings a server to what its folder, or its desired state, says: again and again, in one of its API processes.

What is refused, be it a profile, a policy or a plan, leaves the last good one in place. It is tried again when its
files have changed, or a minute later, so that a mistake does not fill the audit log.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from prometheus_client import Gauge

from trimtab.vectors import Profile
from trimtab.vectors.errors import TrimtabError
from trimtab.vectors.format import MANIFEST_FILE
from trimtab.vectors.manifest import TENSOR_FILE, check_name

from ..config import file_digest
from .desired import Desired, bring_one
from .rollout import Rollout

__all__ = ["Refresh"]

logger = logging.getLogger("vllm.trimtab")

_PROBLEMS = Gauge(
    "trimtab_rescan_problems",
    "What the last rescan could not serve; 0 when all is served that is wanted.",
    multiprocess_mode="mostrecent",
)

WHO = "rescan"
_AGAIN = 60.0  # seconds until what failed is tried again

Signature = tuple[tuple[int, int, int], ...]
Change = Callable[[], Awaitable[object]]
_POLICY, _PLAN = "the policy", "the plan"  # beside names of profiles, which have no spaces


class Refresh:
    """The rescans of one server.

    desired: the operator's file, or None where the folder itself is what is wanted. policy, plan: the files of the
    access policy and of the experiments, or None. resident: says which profiles are loaded, by digest, for these two to
    be held against.
    """

    def __init__(
        self,
        rollout: Rollout,
        seconds: float,
        desired: Path | None,
        policy: Path | None = None,
        resident: Callable[[], Mapping[str, Profile]] = dict,
        plan: Path | None = None,
    ) -> None:
        self._rollout = rollout
        self._seconds = seconds
        self._desired = desired
        self._policy = policy
        self._plan = plan
        self._resident = resident
        self._seen: dict[str, Signature] = {}
        self._failed: dict[str, tuple[object, float]] = {}  # what it was, and when it is tried again
        self._told: list[str] = []
        _PROBLEMS.set(0)

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            await asyncio.sleep(self._seconds)
            await self.turn()

    async def turn(self) -> None:
        """One rescan, unless another process is at it; what goes wrong is said in the log and on /metrics."""
        alone = False
        try:
            with self._alone() as alone:
                problems = await self.once() if alone else []
        except (TrimtabError, OSError) as error:
            problems = [str(error)]
        if alone or problems:
            _PROBLEMS.set(max(len(problems), len(self._failed)))  # between two tries of what failed, nothing is found
        if problems and problems != self._told:
            logger.error("trimtab: the rescan found what it cannot serve: %s", "; ".join(problems))
        self._told = problems

    async def once(self) -> list[str]:
        """One rescan. Returns what went wrong, in sentences.

        Policy and plan come last, because they may speak of profiles that have just come.
        """
        problems = await self._rollout.pull()
        if self._desired is not None:
            problems += await self._follow_desired(Desired.read(self._desired))
        else:
            problems += await self._follow_folder()
        problems += await self._follow_policy()
        problems += await self._follow_plan()
        self._resident()  # this process sees what has changed, and shows it on /metrics
        return problems

    async def _follow_policy(self) -> list[str]:
        file, now = self._policy, self._rollout.state.read()
        try:
            digest = now.policy if file is None else file_digest(file)
        except TrimtabError as error:
            return [str(error)]
        if file is None or digest == now.policy:
            self._failed.pop(_POLICY, None)
            return []
        # Whether it fits depends on what is served, which the counter stands for.
        return await self._try(
            _POLICY, (digest, now.counter), lambda: self._rollout.govern(file, self._resident(), WHO)
        )

    async def _follow_plan(self) -> list[str]:
        file, now = self._plan, self._rollout.state.read()
        try:
            digest = now.experiments if file is None else file_digest(file)
        except TrimtabError as error:
            return [str(error)]
        if file is None or digest == now.experiments:
            self._failed.pop(_PLAN, None)
            return []
        return await self._try(
            _PLAN, (digest, now.counter), lambda: self._rollout.experiment(file, self._resident(), WHO)
        )

    async def _follow_desired(self, desired: Desired) -> list[str]:
        for name in self._rollout.state.read().profiles.keys() - desired.profiles.keys():
            await self._rollout.unload(name, WHO)
        self._forget(desired.profiles)
        problems = []
        for name, wanted in desired.profiles.items():
            files = await asyncio.to_thread(_signature, self._rollout.profiles / name)
            problems += await self._try(name, (wanted, files), partial(bring_one, self._rollout, name, wanted))
        return problems

    async def _follow_folder(self) -> list[str]:
        found = await asyncio.to_thread(_signatures, self._rollout.profiles)
        if not found:  # a volume that is not mounted for a moment must not take every profile out
            return [f"{self._rollout.profiles.name}: holds no profile, so what was served stays"]
        problems = []
        self._forget(found)
        for name, signature in found.items():
            if self._seen.get(name) == signature:
                continue
            problems += await self._try(name, signature, partial(self._rollout.serve, name, WHO))
            if name not in self._failed:
                self._seen[name] = signature
        for name in self._rollout.state.read().profiles.keys() - found.keys():
            await self._rollout.unload(name, WHO)
            self._seen.pop(name, None)
        return problems

    async def _try(self, key: str, signature: object, change: Change) -> list[str]:
        """Make a change, unless the same one was refused less than a minute ago. Returns why it is refused now."""
        failed, again = self._failed.get(key, (None, 0.0))
        if failed == signature and time.monotonic() < again:
            return []
        try:
            await change()
        except TrimtabError as error:
            self._failed[key] = (signature, time.monotonic() + _AGAIN)
            return [str(error)]
        self._failed.pop(key, None)
        return []

    def _forget(self, wanted: Mapping[str, object]) -> None:
        """Of the profiles that were refused, those that nobody wants any more."""
        self._failed = {key: told for key, told in self._failed.items() if key in wanted or key in (_POLICY, _PLAN)}

    @contextmanager
    def _alone(self) -> Iterator[bool]:
        with open(self._rollout.state.folder / "rescan.lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True


def _signatures(folder: Path) -> dict[str, Signature]:
    """What tells one version of each profile folder from the next, without reading it."""
    found = ((path.name, _signature(path)) for path in sorted(folder.iterdir()))
    return {name: signature for name, signature in found if signature is not None}


def _signature(folder: Path) -> Signature | None:
    """Of one; None for what is no profile, or only half there: it is looked at again."""
    try:
        check_name(folder.name)
        status = [os.stat(folder / name) for name in (MANIFEST_FILE, TENSOR_FILE)]
    except (ValueError, OSError):
        return None
    return tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in status)
