"""The policy that an engine holds now.

A server keeps the file in its state folder, where all of its processes read the bytes that were checked; another one
takes effect with the next generation. Without a state folder, as for `LLM`, it is the file that the engine was
configured with.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from trimtab.vectors import Registry
from trimtab.vectors.document import MOST_BYTES
from trimtab.vectors.errors import RequestError, TrimtabError

from ...config import SteeringConfig
from ...errors import StartupError
from ..state import State
from .errors import PolicyError
from .load import parse_policy
from .model import Policy

__all__ = ["check_file", "policy_in_force", "unmet"]


def policy_in_force(config: SteeringConfig, published: str | None) -> Policy | None:
    """The access policy that decides now; None for an engine without one.

    published: sha256 (hex) of the policy of the generation that is served.

    Raises:
        RequestError: 503, because it cannot be read; nothing is served without it.
    """
    if not config.policy:
        return None
    try:
        if not config.state:
            return _as_configured(config.policy, config.policy_digest)
        if published is None:
            raise PolicyError("the generation that is served names none")
        return _kept(config.state, published)
    except TrimtabError as error:
        raise RequestError(f"this server does not know its access policy: {error}", status=503) from error


def check_file(path: Path, registry: Registry) -> bytes:
    """The bytes of a policy's file, once they are known to be a policy that fits these profiles.

    Raises:
        StartupError: they are none; names each line at fault.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        parse_policy(data, registry)
    except OSError as error:
        raise StartupError(f"the access policy {path.name} cannot be read ({error.strerror})") from error
    except PolicyError as error:
        raise StartupError(f"the access policy {path.name} cannot be used: {error}") from error
    return data


def unmet(policy: Policy, registry: Registry) -> list[str]:
    """Why this policy refuses every request of somebody now, in sentences: what it adds is not there."""
    added = [*policy.enforced, *([policy.default] if policy.default else [])]
    return [
        f"profile {one.profile!r} of the access policy is not served" for one in added if one.profile not in registry
    ]


@functools.lru_cache(maxsize=8)
def _as_configured(path: str, digest: str) -> Policy:
    data = Path(path).read_bytes()
    if hashlib.sha256(data).hexdigest() != digest:
        raise StartupError("the file of the access policy changed since the engine was configured; start it again")
    return parse_policy(data)


@functools.lru_cache(maxsize=8)
def _kept(state: str, digest: str) -> Policy:
    return parse_policy(State(Path(state)).policy(digest))
