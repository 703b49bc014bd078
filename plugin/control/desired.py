"""The operator's file that names what a server is to serve, in YAML.

    version: 1
    profiles:
      gender-neutral: {active: "sha256:6f1d0c2b9a3e", staged: "sha256:77ab10c2d3e4"}
      polite: {active: "sha256:0123456789ab", disabled: "answers in the wrong language"}

A digest is written in full or by its first 12 or more digits. What the file does not name is not served. The version
itself comes from the folder of profiles, which holds one version of each at a time: it is staged when it lies there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from trimtab.vectors.decode import check_text, sentence
from trimtab.vectors.errors import FormatError
from trimtab.vectors.files import read_bytes
from trimtab.vectors.manifest import check_name

from .generation import Generation, Resident

if TYPE_CHECKING:
    from .rollout import Rollout  # which counts: see `begin.share_metrics`

__all__ = ["Desired", "Wanted", "bring_one"]

WHO = "desired state"
_MOST_BYTES = 1 << 20
_VERSIONS = (1,)

_Digest = Annotated[str, StringConstraints(pattern="^sha256:[0-9a-f]{12,64}$"), AfterValidator(lambda text: text[7:])]


class Wanted(BaseModel):
    """What one profile shall be. active, staged: the first digits of digests. disabled: the reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    active: _Digest | None = None
    staged: _Digest | None = None
    disabled: str | None = Field(default=None, min_length=1, max_length=500)


class Desired(BaseModel):
    """What a server shall serve."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: int
    profiles: Mapping[Annotated[str, AfterValidator(check_name)], Wanted]

    @classmethod
    def read(cls, file: Path) -> Desired:
        """Raises FormatError for a file that cannot be read, is of another version, or holds anything unknown."""
        data = read_bytes(file.parent, file.name, _MOST_BYTES)
        try:
            found: Any = yaml.load(data, _StrictLoader)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" (line {mark.line + 1})" if mark is not None else ""
            raise FormatError(f"{file.name}: is not YAML{where}: {getattr(error, 'problem', None) or error}") from error
        if not isinstance(found, dict) or found.get("version") not in _VERSIONS or found["version"] is True:
            told = found.get("version") if isinstance(found, dict) else None
            raise FormatError(
                f"{file.name}: has version {str(told)[:20]}; this trimtab reads version 1: begin the file with "
                "`version: 1`"
            )
        check_text(found, file.name)
        try:
            return cls.model_validate(found)
        except ValidationError as error:
            raise FormatError(f"{file.name}: {sentence(error)}") from error

    def first(self, generation: Generation) -> Generation:
        """Of a server that starts with what its folder holds: only what is wanted is active, the rest is beside it."""
        profiles: dict[str, Resident] = {}
        disabled: dict[str, str] = {}
        for name, wanted in self.profiles.items():
            found = generation.profiles.get(name, Resident()).active
            if found is not None:
                is_active = wanted.active is not None and found.digest.startswith(wanted.active)
                profiles[name] = Resident(active=found) if is_active else Resident(other=found)
                if wanted.disabled is not None:
                    disabled[name] = wanted.disabled
        return generation.model_copy(update={"profiles": profiles, "disabled": disabled})

    def unmet(self, generation: Generation) -> Iterator[str]:
        """What a server that serves `generation` still lacks, each in one sentence."""
        for name in generation.profiles:
            if name not in self.profiles:
                yield f"profile {name!r} is served, and the desired state does not name it"
        for name, wanted in self.profiles.items():
            one = generation.profiles.get(name, Resident())
            if wanted.active is not None and not (one.active and one.active.digest.startswith(wanted.active)):
                yield f"version sha256:{wanted.active[:12]} of profile {name!r} is not active"
            if wanted.active is None and one.active is not None:
                yield f"profile {name!r} is active, and the desired state names no active version"
            if wanted.staged is not None and not any(v.digest.startswith(wanted.staged) for v in one.versions):
                yield f"version sha256:{wanted.staged[:12]} of profile {name!r} is not resident"
            if generation.disabled.get(name) != wanted.disabled:
                yield f"profile {name!r} is {'not ' if wanted.disabled else ''}disabled"


async def bring_one(rollout: Rollout, name: str, wanted: Wanted) -> None:
    """Change one profile of a server to what is wanted, as far as its folder has the version.

    Raises:
        RequestError: why it cannot be; what was served stays.
    """
    generation = rollout.state.read()
    one = generation.profiles.get(name, Resident())
    if wanted.disabled is not None:  # first: it must be out at once
        await _disable(rollout, name, wanted.disabled)
    if wanted.active is None and one.active is not None:
        await rollout.unload(name, WHO)
    elif wanted.active is not None and not (one.active and one.active.digest.startswith(wanted.active)):
        if one.other is not None and one.other.digest.startswith(wanted.active):
            await rollout.activate(name, WHO, wanted.active)
        else:
            await rollout.serve(name, WHO, wanted.active)
    now = rollout.state.read().profiles.get(name, Resident())
    if wanted.staged is not None and not any(v.digest.startswith(wanted.staged) for v in now.versions):
        await rollout.stage(name, WHO, wanted.staged)
    await _disable(rollout, name, wanted.disabled)


async def _disable(rollout: Rollout, name: str, reason: str | None) -> None:
    """Disable a profile, or enable it where there is no reason; nothing, and no line in the log, where it is so."""
    now = rollout.state.read()
    if name not in now.profiles or now.disabled.get(name) == reason:
        return
    if reason is None:
        await rollout.enable(name, WHO)
    else:
        await rollout.disable(name, reason, WHO)


class _StrictLoader(yaml.SafeLoader):
    """Refuses a key that is written twice, of which YAML would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for number, key in enumerate(keys):
            if key in keys[:number]:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {str(key)[:80]!r} is written twice", node.value[number][0].start_mark
                )
        return dict(super().construct_mapping(node, deep=deep))
