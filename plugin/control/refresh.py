"""Brings a server to what its folder, or its desired state, says: again and again, in one of its API processes.

A version that cannot be loaded leaves the last good one in place, and is tried again when its files have changed, or a
minute later.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from prometheus_client import Gauge

from trimtab.vectors import Profile
from trimtab.vectors.errors import RequestError, TrimtabError
from trimtab.vectors.format import MANIFEST_FILE
from trimtab.vectors.manifest import TENSOR_FILE, check_name

from ..config import file_digest
from .desired import Desired
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
        self._failed: dict[str, tuple[Signature, float]] = {}
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
            problems += await Desired.read(self._desired).bring(self._rollout)
        else:
            problems += await self._follow_folder()
        problems += await self._follow_policy()
        problems += await self._follow_plan()
        self._resident()  # this process sees what has changed, and shows it on /metrics
        return problems

    async def _follow_policy(self) -> list[str]:
        try:
            if self._policy is not None and file_digest(self._policy) != self._rollout.state.read().policy:
                await self._rollout.govern(self._policy, self._resident(), WHO)
        except TrimtabError as error:
            return [str(error)]
        return []

    async def _follow_plan(self) -> list[str]:
        try:
            if self._plan is not None and file_digest(self._plan) != self._rollout.state.read().experiments:
                await self._rollout.experiment(self._plan, self._resident(), WHO)
        except TrimtabError as error:
            return [str(error)]
        return []

    async def _follow_folder(self) -> list[str]:
        found = await asyncio.to_thread(_signatures, self._rollout.profiles)
        if not found:  # a volume that is not mounted for a moment must not take every profile out
            return [f"{self._rollout.profiles.name}: holds no profile, so what was served stays"]
        problems = []
        self._failed = {name: failed for name, failed in self._failed.items() if name in found}
        for name, signature in found.items():
            if self._seen.get(name) == signature or not self._is_due(name, signature):
                continue
            try:
                await self._rollout.serve(name, WHO)
            except RequestError as error:
                self._failed[name] = (signature, time.monotonic() + _AGAIN)
                problems.append(str(error))
            else:
                self._seen[name] = signature
                self._failed.pop(name, None)
        for name in self._rollout.state.read().profiles.keys() - found.keys():
            await self._rollout.unload(name, WHO)
            self._seen.pop(name, None)
        return problems

    def _is_due(self, name: str, signature: Signature) -> bool:
        failed, again = self._failed.get(name, (None, 0.0))
        return failed != signature or time.monotonic() >= again

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
    found = {}
    for path in sorted(folder.iterdir()):
        try:
            check_name(path.name)
            status = [os.stat(path / name) for name in (MANIFEST_FILE, TENSOR_FILE)]
        except (ValueError, OSError):
            continue  # no profile, or one that is only half there: it is looked at again
        found[path.name] = tuple((one.st_mtime_ns, one.st_ino, one.st_size) for one in status)
    return found
