"""The plan of experiments that a server holds now, and its key; it is kept as the access policy is (`policy.held`)."""

from __future__ import annotations

import functools
import os
from pathlib import Path

from trimtab.vectors import Registry
from trimtab.vectors.document import MOST_BYTES
from trimtab.vectors.errors import RequestError, TrimtabError
from trimtab.vectors.experiments import Phases, Plan, PlanError, UnitKey, changes, read_plan
from trimtab.vectors.experiments.unit import UNIT_KEY

from ...config import SteeringConfig
from ...errors import StartupError
from ..policy import Policy
from ..state import PHASES_FILE, State
from .fits import faults

__all__ = ["check_plan", "keep_plan", "plan_in_force", "read_file", "unit_key"]


def plan_in_force(config: SteeringConfig, published: str | None) -> Plan | None:
    """The plan that decides now; None for a server without one.

    published: sha256 (hex) of the plan of the generation that is served.

    Raises:
        RequestError: 503, because it cannot be read.
    """
    if not config.experiments or not config.state:
        return None
    try:
        if published is None:
            raise PlanError("the generation that is served names none")
        return _kept(config.state, published)
    except TrimtabError as error:
        raise RequestError(f"this server does not know its experiments: {error}", status=503) from error


def read_file(path: Path) -> tuple[bytes, Plan]:
    """The bytes of a plan's file, and what they say.

    Raises:
        StartupError: they are no plan; names each line at fault.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        return data, read_plan(data)
    except OSError as error:
        raise StartupError(f"the plan of experiments {path.name} cannot be read ({error.strerror})") from error
    except PlanError as error:
        raise StartupError(f"the plan of experiments {path.name} cannot be used: {error}") from error


def check_plan(
    path: Path, registry: Registry, policy: Policy | None, before: Plan | None, state: State
) -> tuple[bytes, Plan]:
    """`read_file`, for a plan that fits these profiles, this policy, the plan that was held before, and earlier ones.

    Raises:
        StartupError: also with all that does not fit.
        FormatError: what is known of earlier plans cannot be read.
    """
    data, plan = read_file(path)
    said = changes(before, plan) if before is not None else []
    said += [*_phases(state).refused(plan, before), *faults(plan, registry, policy)]
    if said:
        raise StartupError(f"the plan of experiments {path.name} cannot be used: {'; '.join(said)}")
    return data, plan


def keep_plan(state: State, data: bytes, plan: Plan) -> str:
    """Keep a plan that is about to be in force, and what runs under which seed; returns the sha256 (hex) of its file.

    Raises:
        ProfileError: the disk refuses.
    """
    before = _phases(state)
    if (after := before.after(plan)) != before:  # first: a seed that is known too early does no harm
        state.keep_phases(after.dump())
    return state.keep_plan(data)


def _phases(state: State) -> Phases:
    data = state.phases()
    return Phases() if data is None else Phases.parse(data, PHASES_FILE)


def unit_key() -> UnitKey:
    """The key of this server's units.

    Raises:
        StartupError: there is none, or it is too short.
    """
    try:
        return _key(os.environ.get(UNIT_KEY, ""))
    except TrimtabError as error:
        raise StartupError(f"experiments need a key: {error}") from error


@functools.lru_cache(maxsize=2)
def _key(text: str) -> UnitKey:
    return UnitKey(text)


@functools.lru_cache(maxsize=8)
def _kept(state: str, digest: str) -> Plan:
    return read_plan(State(Path(state)).plan(digest))
