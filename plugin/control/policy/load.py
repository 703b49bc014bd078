"""From the bytes of a file to a policy that holds together, or to an error that names each line at fault."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from trimtab.vectors import Registry

from .coherence import Fault, faults_in, faults_with
from .document import MOST_BYTES, Document, read
from .errors import PolicyError
from .model import Policy
from .pushback import prepare

__all__ = ["parse_policy", "read_policy"]

# What pydantic says for Python, said for YAML.
_SAID = {
    "extra_forbidden": "is no key of a policy here (docs/policy.md has them all)",
    "missing": "is missing",
    "model_type": "should be a mapping (`key: value`)",
    "dict_type": "should be a mapping (`key: value`)",
    "tuple_type": "should be a list (`[…]`)",
    "string_type": "should be text; put it in quotes",
}


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
    document = read(data)
    try:
        policy = Policy.model_validate(document.value)
    except ValidationError as error:
        raise _error(
            document, [_complaint(one) for one in error.errors(include_url=False, include_input=False)]
        ) from None
    if faults := list(faults_in(policy)):
        raise _error(document, faults)
    if registry is not None:
        if faults := list(faults_with(policy, registry)):
            raise _error(document, faults)
        enforced = [registry[one.profile] for one in policy.enforced]
        prepare(list(registry.values()), enforced)
    return policy


def _complaint(error: Any) -> Fault:
    said = _SAID.get(error["type"]) or str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should")
    return tuple(part for part in error["loc"] if part != "[key]"), said


def _error(document: Document, faults: list[Fault]) -> PolicyError:
    said = [(f"{_dotted(place)}{reason}", document.line(place)) for place, reason in faults]
    (reason, line), *more = sorted(said, key=lambda fault: fault[1])
    return PolicyError(reason, line, *more)


def _dotted(place: tuple[str | int, ...]) -> str:
    return f"{'.'.join(map(str, place))[:120]}: " if place else ""
