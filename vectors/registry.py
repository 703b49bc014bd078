"""The profiles that a server may serve: one folder of profile folders, loaded as a whole or not at all."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from .errors import FormatError, RequestError, UnknownProfileError, printable
from .files import snapshot_of
from .format import MANIFEST_FILE, check_same_model, verify_profile
from .identity import ModelIdentity
from .manifest import check_name
from .profile import Profile

logger = logging.getLogger("vllm.trimtab")  # below vLLM's logger, which has the handlers


class Registry(Mapping[str, Profile]):
    """Profiles by name, in the order of their names.

    A mapping, except that a missing name raises `UnknownProfileError` with the nearest one that is there.
    """

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._profiles: dict[str, Profile] = {}
        for profile in sorted(profiles, key=lambda profile: profile.name):
            if profile.name in self._profiles:
                raise FormatError(f"{profile.name}: is there twice; every profile needs a name of its own")
            self._profiles[profile.name] = profile

    @classmethod
    def open(cls, folder: Path, model: ModelIdentity | None = None) -> Registry:
        """Loads and verifies the profiles in the sub-folders of `folder`.

        Skipped, with one line in the log: files, what begins with a dot, and a folder that can be no profile because
        its name is none and no profile.json is seen in it (`lost+found`).

        model: the model that will be served, which every profile must be made for; None skips this check.

        Raises:
            FormatError: no such folder, no profile in it, a folder that may not be read, is a link to nothing or to
                elsewhere than a snapshot of the Hub's cache, or is named otherwise than its profile; or any profile
                that does not load.
            IntegrityError: as `verify_profile`.
            ModelMismatchError: as `verify_profile`, or two profiles were made for different models.
                One bad profile keeps the whole registry shut: a server that leaves it out would serve unsteered what
                its operator thinks is steered.
        """
        folder = Path(folder)
        profiles: list[Profile] = []
        skipped: list[str] = []
        for path in _listed(folder):
            if not _may_be_profile(path, folder.resolve()):
                skipped.append(printable(path.name))
                continue
            profiles.append(_verified(path, model))
        if skipped:
            logger.info("%s: skipped what can be no profile: %s", printable(folder.name), ", ".join(skipped[:20]))
        if not profiles:
            raise FormatError(f"{folder.name}: holds no profile; make one with `trimtab profile` or copy one into it")
        for profile in profiles[1:]:
            check_same_model(profile, profiles[0].name, profiles[0].manifest.base_model)
        return cls(profiles)

    @classmethod
    def open_one(cls, folder: Path, name: str, model: ModelIdentity | None = None) -> Profile:
        """The profile `name` of the registry `folder`, with every check that `open` makes of it.

        Raises:
            FormatError: no such profile, or one that does not load. IntegrityError, ModelMismatchError: as `open`.
        """
        folder = Path(folder)
        path = folder / name
        if not _is_name(name) or not _may_be_profile(path, folder.resolve()):
            raise FormatError(f"{printable(name[:80])}: is no profile folder in {folder.name}; copy it there first")
        return _verified(path, model)

    def find(self, name: str, version: str | None = None) -> Profile:
        """The profile `name`, or its version whose digest begins with `version` (hex).

        Raises:
            UnknownProfileError: no such profile is loaded.
            RequestError: that version of it is not loaded.
        """
        profile = self[name]
        if version is not None and not profile.digest.startswith(version):
            raise RequestError(
                f"version sha256:{version} of profile {profile.name!r} is not loaded; loaded is "
                f"sha256:{profile.digest[:12]}; leave the version out, or ask for one that is loaded",
                param="steering.profile",
            )
        return profile

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all profiles, sorted."""
        return tuple(self._profiles)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) over the names and every field and tensor: what all processes of a server must agree on."""
        listing = "".join(f"{name} {profile.content_digest}\n" for name, profile in self._profiles.items())
        return hashlib.sha256(listing.encode()).hexdigest()

    def armed(self) -> dict[int, int]:
        """The largest K by steered layer, over all profiles; a coarse vector counts 1."""
        armed: dict[int, int] = {}
        for profile in self._profiles.values():
            for layer, tensor in profile.tensors.items():
                armed[layer] = max(armed.get(layer, 0), tensor.rows)
        return {layer: armed[layer] for layer in sorted(armed)}

    def __getitem__(self, name: str) -> Profile:
        try:
            return self._profiles[name]
        except KeyError:
            raise UnknownProfileError(name, self._profiles) from None

    def __contains__(self, name: object) -> bool:
        return name in self._profiles

    def __iter__(self) -> Iterator[str]:
        return iter(self._profiles)

    def __len__(self) -> int:
        return len(self._profiles)

    def __repr__(self) -> str:
        return f"Registry({', '.join(self._profiles)})"


def _verified(path: Path, model: ModelIdentity | None) -> Profile:
    profile = verify_profile(path, model)
    if profile.name != path.name:
        raise FormatError(
            f"{path.name}/profile.json: is the profile {profile.name!r}; rename its folder to {profile.name!r}"
        )
    return profile


def _listed(folder: Path) -> list[Path]:
    """What is in a registry, sorted.

    Raises:
        FormatError: it is no folder, or may not be listed.
    """
    if not os.path.isdir(folder):
        raise FormatError(f"{folder.name}: is no folder; name the folder that holds the profile folders")
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise FormatError(f"{folder.name}: cannot be listed ({error.strerror}); the server's user needs to") from error


def _may_be_profile(path: Path, home: Path) -> bool:
    """Whether an entry of the registry `home` has to load as a profile; False where it is skipped.

    Raises:
        FormatError: a link that cannot be followed, or leads elsewhere.
    """
    if path.name.startswith("."):
        return False
    named = _is_name(path.name)
    if not os.path.isdir(path):  # pathlib's would raise where a link leads into a folder that may not be searched
        if named and path.is_symlink() and not os.path.exists(path):
            raise FormatError(
                f"{path.name}: is a link to nothing that can be reached; take it away or copy the profile folder itself"
            )
        return False
    real = path.resolve()
    if not real.is_relative_to(home) and snapshot_of(real) is None:
        raise FormatError(
            f"{path.name}: is a link out of the registry; only a snapshot of the Hub's cache may be linked. "
            "Copy the profile folder into the registry"
        )
    return named or os.access(path / MANIFEST_FILE, os.F_OK)


def _is_name(text: str) -> bool:
    try:
        check_name(text)
    except ValueError:
        return False
    return True
