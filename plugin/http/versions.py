"""What a server serves, as numbers on /metrics, so that replicas can be compared.

A digest is shown by its first 48 bits, as a number, which a float holds exactly. A label could not be: where several
processes count together, prometheus_client never forgets a label, so each reload would leave one behind. Zero stands
for nothing: no such version, no policy.

Where several API processes write a number, /metrics shows the one that was written last.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from trimtab.vectors.errors import RequestError
from trimtab.vectors.experiments import Plan

from ..config import SteeringConfig
from ..control.experiments.held import plan_in_force, unit_key
from ..control.generation import Generation, Resident
from ..control.policy import Policy
from ..control.policy.held import policy_in_force, unmet
from ..control.served import Served, observers, served
from ..control.state import State

__all__ = ["Versions", "number_of"]

_BITS = 48
_NOBODY = Resident()

_GENERATION = Gauge("trimtab_generation", "How often what is served has changed.", multiprocess_mode="mostrecent")
_SERVED = Gauge("trimtab_served_version", "Digest of all that is served.", multiprocess_mode="mostrecent")
_ACTIVE = Gauge(
    "trimtab_profile_version", "Digest of a profile's active version.", ["profile"], multiprocess_mode="mostrecent"
)
_STAGED = Gauge(
    "trimtab_profile_staged_version",
    "Digest of a profile's other resident version.",
    ["profile"],
    multiprocess_mode="mostrecent",
)
_DISABLED = Gauge(
    "trimtab_profile_disabled", "1 for a profile that is disabled.", ["profile"], multiprocess_mode="mostrecent"
)
_POLICY = Gauge("trimtab_policy_version", "Digest of the access policy's file.", multiprocess_mode="mostrecent")
_EXPERIMENTS = Gauge(
    "trimtab_experiments_version", "Digest of the plan of experiments.", multiprocess_mode="mostrecent"
)
_UNIT_KEY = Gauge(
    "trimtab_unit_key_version", "Fingerprint of the key of the experiments' units.", multiprocess_mode="mostrecent"
)
_UNMET = Gauge(
    "trimtab_policy_unmet",
    "Profiles that the access policy adds and that are not served.",
    multiprocess_mode="mostrecent",
)


def number_of(digest: str | None) -> int:
    """The first 48 bits of a digest (hex) as a number; 0 for None."""
    return int(digest[: _BITS // 4], 16) if digest else 0


class Versions:
    """Shows what is served. vllm_config: of the engine."""

    def __init__(self, vllm_config: Any) -> None:
        self._config = SteeringConfig.of(vllm_config)
        self._vllm_config = vllm_config
        self._shown: set[str] = set()

    def begin(self) -> None:
        """Show what is served now, and from here on what changes."""
        now = served(self._vllm_config)
        if now is None or self._config is None:
            return
        observers[:] = [self]
        state = self._config.state
        self(State(Path(state)).read() if state else Generation.first(now.registry.values()), now)

    def __call__(self, generation: Generation, now: Served) -> None:
        self._shown.update(generation.profiles, generation.disabled)
        for name in self._shown:
            one = generation.profiles.get(name, _NOBODY)
            _ACTIVE.labels(name).set(number_of(one.active.digest if one.active else None))
            _STAGED.labels(name).set(number_of(one.other.digest if one.other else None))
            _DISABLED.labels(name).set(name in generation.disabled)
        _GENERATION.set(generation.counter)
        _SERVED.set(number_of(generation.digest))
        _POLICY.set(number_of(generation.policy))
        policy, plan = self._held(now)
        _UNMET.set(0 if policy is None else len(unmet(policy, now.registry)))
        _EXPERIMENTS.set(number_of(plan.digest if plan else None))
        _UNIT_KEY.set(number_of(unit_key().fingerprint if plan else None))

    def _held(self, now: Served) -> tuple[Policy | None, Plan | None]:
        if self._config is None:
            return None, None
        try:
            return policy_in_force(self._config, now.policy), plan_in_force(self._config, now.experiments)
        except RequestError:  # each request that needs them is told so; to be shown, they are not there
            return None, None
