"""From the bytes of a file to a policy that holds together, or to an error that names each line at fault."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from trimtab.vectors import Registry
from trimtab.vectors.document import MOST_BYTES, Fault, parse_document

from .coherence import faults_in, faults_with
from .errors import PolicyError
from .model import Policy
from .pushback import prepare

__all__ = ["parse_policy", "read_policy"]

_UNKNOWN = "is no key of a policy here (docs/policy.md has them all)"


def read_policy(path: Path, registry: Registry | None = None) -> Policy:
    """The policy in a file, as `parse_policy`.

    Raises:
        PolicyError: also for a file that cannot be read.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot be read ({error.strerror}); give a file of YAML") from error
    return parse_policy(data, registry)


def parse_policy(data: bytes, registry: Registry | None = None) -> Policy:
    """The policy in the bytes of a file of YAML: all of it, or an error.

    registry: the profiles that are served, which it has to fit; None checks what can be checked without them.

    Raises:
        PolicyError: says all that is wrong, by line.
    """
    checks: list[Callable[[Policy], Iterable[Fault]]] = [faults_in]
    if registry is not None:
        checks.append(lambda policy: faults_with(policy, registry))
    policy = parse_document(data, Policy, _UNKNOWN, *checks, error=PolicyError)
    if registry is not None:
        enforced = [registry[one.profile] for one in policy.enforced]
        prepare(list(registry.values()), enforced)
    return policy
