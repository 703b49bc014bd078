"""A generation: what a server serves, as one small file. Pure: each change gives the next generation.

A profile has two places: its *active* version is what its name means, and the *other* is resident beside it, under its
digest only. Staging fills the other place; activating swaps the two, so that a rollback is the same step again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from trimtab.vectors import Profile
from trimtab.vectors.decode import dump_manifest, parse_manifest
from trimtab.vectors.errors import RequestError, UnknownProfileError
from trimtab.vectors.manifest import check_name

__all__ = ["Generation", "Resident", "Version"]

FORMAT_VERSIONS = (1,)

_Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
_Name = Annotated[str, AfterValidator(check_name)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Version(_Frozen):
    """One version of a profile. digest: of what it adds. content: of all that its files say, its alpha range too."""

    digest: _Digest
    content: _Digest

    @classmethod
    def of(cls, profile: Profile) -> Version:
        return cls(digest=profile.digest, content=profile.content_digest)


class Resident(_Frozen):
    """The versions of one profile that workers hold."""

    active: Version | None = None
    other: Version | None = None

    @property
    def versions(self) -> tuple[Version, ...]:
        return tuple(version for version in (self.active, self.other) if version is not None)


class Generation(_Frozen):
    """What a server serves.

    counter: grows by one with each change. profiles: by name. disabled: name → reason. policy, experiments: sha256 of
    the files of the access policy and of the plan of experiments.
    """

    format_version: int = 1
    counter: int = Field(ge=1)
    profiles: Mapping[_Name, Resident] = Field(default_factory=dict)
    disabled: Mapping[_Name, str] = Field(default_factory=dict)
    policy: _Digest | None = None
    experiments: _Digest | None = None

    @classmethod
    def first(cls, profiles: Iterable[Profile], before: Generation | None = None) -> Generation:
        """That of a server that starts with these profiles. before: the last one of a server that has ended."""
        return cls(
            counter=1 if before is None else before.counter + 1,
            profiles={profile.name: Resident(active=Version.of(profile)) for profile in profiles},
            disabled={} if before is None else before.disabled,  # a restart must not bring back what was taken out
        )

    @classmethod
    def parse(cls, data: bytes, where: str) -> Generation:
        """Raises FormatError for another format version, an unknown field, or anything else that is not one."""
        return parse_manifest(cls, data, where, versions=FORMAT_VERSIONS)

    def dump(self, where: str) -> bytes:
        return dump_manifest(self, where)

    @property
    def digest(self) -> str:
        """sha256 (hex) over everything but the counter: equal for two servers that serve the same."""
        fields = self.model_dump(mode="json", exclude={"counter"})
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    @property
    def resident(self) -> frozenset[str]:
        """The digests that workers must hold."""
        return frozenset(version.digest for one in self.profiles.values() for version in one.versions)

    @property
    def contents(self) -> frozenset[str]:
        return frozenset(version.content for one in self.profiles.values() for version in one.versions)

    def staged(self, name: str, version: Version) -> Generation:
        """`version` in the other place of a profile, unless it is the active one."""
        one = self.profiles.get(name, Resident())
        return self if version in one.versions else self._with(name, one.model_copy(update={"other": version}))

    def without_other(self, name: str) -> Generation:
        """The other place of a profile emptied, so that its rows may be used again."""
        one = self.profiles.get(name, Resident())
        return self if one.other is None else self._with(name, one.model_copy(update={"other": None}))

    def activated(self, name: str, digest: str | None = None) -> Generation:
        """The two places of a profile swapped. digest: what the active one shall begin with, or None for the other.

        Raises:
            RequestError: 404 for a profile that is not loaded, 409 where no such version is resident.
        """
        one = self._one(name)
        if digest is not None and one.active is not None and one.active.digest.startswith(digest):
            return self
        if one.other is None or not one.other.digest.startswith(digest or ""):
            wanted = "another version" if digest is None else f"version sha256:{digest[:12]}"
            raise RequestError(
                f"{wanted} of profile {name!r} is not resident; stage it first", param="name", status=409
            )
        return self._with(name, Resident(active=one.other, other=one.active))

    def serving(self, name: str, version: Version) -> Generation:
        """A version that is resident as the active one."""
        one = self.profiles[name]
        return self if one.active == version else self._with(name, Resident(active=version, other=one.active))

    def unloaded(self, name: str) -> Generation:
        """Without a profile. Requests that name it are refused as for any unknown name."""
        self._one(name)
        profiles = {known: one for known, one in self.profiles.items() if known != name}
        disabled = {known: reason for known, reason in self.disabled.items() if known != name}
        return self._next(profiles=profiles, disabled=disabled)

    def without(self, name: str, reason: str) -> Generation:
        """A profile disabled: requests that name it are refused with the reason, until it is enabled again."""
        self._one(name)
        return self._next(disabled={**self.disabled, name: reason}) if self.disabled.get(name) != reason else self

    def enabled(self, name: str) -> Generation:
        """A profile no longer disabled."""
        self._one(name)
        rest = {known: reason for known, reason in self.disabled.items() if known != name}
        return self._next(disabled=rest) if name in self.disabled else self

    def with_policy(self, digest: str | None) -> Generation:
        """Another access policy."""
        return self if digest == self.policy else self._next(policy=digest)

    def with_experiments(self, digest: str | None) -> Generation:
        """Another plan of experiments."""
        return self if digest == self.experiments else self._next(experiments=digest)

    def _one(self, name: str) -> Resident:
        if name not in self.profiles:
            if name in self.disabled:
                return Resident()
            error = UnknownProfileError(name, self.profiles, param="name")
            raise RequestError(str(error), param="name", status=404)
        return self.profiles[name]

    def _with(self, name: str, one: Resident) -> Generation:
        return self._next(profiles={**self.profiles, name: one})

    def _next(self, **changes: object) -> Generation:
        return self.model_copy(update={**changes, "counter": self.counter + 1})
