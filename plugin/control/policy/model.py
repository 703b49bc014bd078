"""What a policy says: pydantic models that refuse every unknown field and every number out of range.

What its parts say of each other is checked in `coherence`.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictStr

from trimtab.vectors import Profile
from trimtab.vectors.asked import MOST_PROFILES
from trimtab.vectors.decode import Natural, Real
from trimtab.vectors.manifest import MAX_ALPHA, Name

from .patterns import check_pattern, matches

__all__ = ["ANONYMOUS", "LOCAL", "Added", "Caller", "Entry", "Grant", "Limits", "Policy", "Rule", "is_subject"]

LOCAL = "local"
"""The subject of requests that a Python program makes with `LLM`, without HTTP."""

ANONYMOUS = "anonymous"
"""What a request without a subject is called in logs. No rule can name it: rules for all do."""

_EMPTY_KEY = hashlib.sha256(b"").hexdigest()
_RESERVED_HEADERS = frozenset({"authorization", "x-api-key", "cookie", "host", "content-type", "content-length"})


def is_subject(name: str) -> bool:
    """Whether a subject may be called so."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}", name) is not None and name not in (LOCAL, ANONYMOUS)


def _subject(name: str) -> str:
    if name in (LOCAL, ANONYMOUS):
        raise ValueError(f"{name!r} is reserved; choose another name for the subject")
    if not is_subject(name):
        raise ValueError(
            f"{name[:80]!r} is no name of a subject; allowed are 1 to 63 letters, digits, '.', '_', '@' and '-', "
            "beginning with a letter or a digit"
        )
    return name


def _key(text: str) -> str:
    match = re.fullmatch(r"sha256:([0-9a-f]{64})", text)
    if match is None:
        # The text may be the key itself: it is not repeated.
        raise ValueError(
            'is no digest of a key; write sha256: and 64 hex digits (printf %s "$KEY" | sha256sum), never the key'
        )
    if match[1] == _EMPTY_KEY:
        raise ValueError("is the digest of an empty key, which everybody has")
    return match[1]


def _header(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9-]{0,62}", name) or name.lower() in _RESERVED_HEADERS:
        raise ValueError(f"{name[:80]!r} is no header for a subject; take one of the gateway's own, such as X-Consumer")
    return name.lower()


def _subjects(text: str) -> str:
    return check_pattern(text, "subjects")


def _profiles(text: str) -> str:
    return check_pattern(text, "profiles")


class _Frozen(BaseModel):
    # No value of the file is repeated in an error: it may be a key.
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


Alpha = Annotated[Real, Field(ge=-MAX_ALPHA, le=MAX_ALPHA)]
KeyDigest = Annotated[StrictStr, AfterValidator(_key)]
SubjectName = Annotated[StrictStr, AfterValidator(_subject)]


class Caller(_Frozen):
    """How a subject is known. keys: sha256 (hex) of its keys, several for a rotation.

    subject_from: the subject is a gateway, and this header of its requests, lower case, names the subject instead.
    """

    keys: tuple[KeyDigest, ...] = ()
    subject_from: Annotated[StrictStr, AfterValidator(_header)] | None = None


class Grant(_Frozen):
    """The strengths that may be asked for, min ≤ alpha ≤ max; None leaves the profile's own range."""

    alpha: tuple[Alpha, Alpha] | None = None


class Entry(_Frozen):
    """An experiment that requests enter by themselves."""

    experiment: Name


class Rule(_Frozen):
    """The rights of the subjects that it is the first to match.

    subjects, and the keys of allow: patterns, see `patterns`. name: in metrics and logs; `rule-N` by default.
    may_opt_out: "none" takes the default away. may_name_versions: `profile@sha256:…` reaches staged versions.
    experiments: those that may be named. default: one that a request enters which names none; outside of it the default
    of the policy holds. may_force_arm: `arm` chooses the arm of an experiment that may be named.
    """

    name: Name | None = None
    subjects: Annotated[tuple[Annotated[StrictStr, AfterValidator(_subjects)], ...], Field(min_length=1)]
    allow: dict[Annotated[StrictStr, AfterValidator(_profiles)], Grant] = Field(default_factory=dict)
    experiments: tuple[Name, ...] = ()
    default: Entry | None = None
    may_force_arm: StrictBool = False
    may_opt_out: StrictBool = False
    may_name_versions: StrictBool = False

    def grant(self, profile: str) -> Grant | None:
        """The first entry of `allow` that matches; None where the profile is not allowed."""
        return next((grant for pattern, grant in self.allow.items() if matches(pattern, profile)), None)


class Added(_Frozen):
    """A profile that the server adds. alpha: None for the profile's own default."""

    profile: Name
    alpha: Alpha | None = None

    def alpha_of(self, profile: Profile) -> float:
        """The strength that it is added with.

        Raises:
            AlphaError: the profile does not allow it.
        """
        alphas = profile.manifest.alpha
        return alphas.check(alphas.default if self.alpha is None else self.alpha)


class Limits(_Frozen):
    """Bounds on what a request asks for.

    profiles: how many; None for as many as fit beside the enforced ones. relative_dose: the largest Σ |alpha| ‖v‖ / ‖h‖
    at a layer; None for no bound. against_enforced: how far it may push back along an enforced vector, as a share of
    that vector's own addition, see `pushback`; None for no bound.
    """

    profiles: Annotated[Natural, Field(ge=1, le=MOST_PROFILES)] | None = None
    relative_dose: Annotated[Real, Field(gt=0)] | None = None
    against_enforced: Annotated[Real, Field(ge=0)] | None = 0.05


class Policy(_Frozen):
    """Who may be steered how, and what everybody gets.

    subjects: by name. rules: the first whose subjects match holds; where none does, nothing may be asked for. default:
    for a request that says nothing. enforced: added to every request, after everything else. mode: "report" decides,
    counts and logs, and changes nothing. missing_profile: what happens where a default or enforced profile is not
    loaded; "refuse" answers 503.
    """

    version: Literal[1]
    mode: Literal["enforce", "report"] = "enforce"
    subjects: dict[SubjectName, Caller] = Field(default_factory=dict)
    rules: tuple[Rule, ...] = ()
    default: Added | None = None
    enforced: Annotated[tuple[Added, ...], Field(max_length=MOST_PROFILES - 1)] = ()
    limits: Limits = Limits()
    missing_profile: Literal["refuse"] = "refuse"

    @property
    def has_gateway(self) -> bool:
        """Whether a header may name the subject."""
        return any(caller.subject_from is not None for caller in self.subjects.values())

    @property
    def most_profiles(self) -> int:
        """How many profiles a request may name."""
        beside = MOST_PROFILES - len(self.enforced)
        return beside if self.limits.profiles is None else min(self.limits.profiles, beside)

    def label(self, index: int) -> str:
        """The name of a rule in metrics and logs."""
        return self.rules[index].name or f"rule-{index + 1}"

    @property
    def digest(self) -> str:
        """sha256 (hex) over all that it says, in its order: equal for two files that mean the same."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=False)
        return hashlib.sha256(b"trimtab policy 1\n" + content.encode()).hexdigest()
