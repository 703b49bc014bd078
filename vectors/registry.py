"""The profiles that a server may serve: one folder of profile folders, loaded as a whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from .errors import FormatError, UnknownProfileError
from .format import verify_profile
from .identity import ModelIdentity
from .profile import Profile


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
        """Loads and verifies every sub-folder of `folder`; files beside them and dot-folders are not looked at.

        model: the model that will be served, which every profile must be made for; None skips this check.

        Raises:
            FormatError: no such folder, no profile in it, a folder that is a link to elsewhere or is named otherwise
                than its profile; or any profile that does not load.
            IntegrityError, ModelMismatchError: as `verify_profile`. One bad profile keeps the whole registry shut:
                a server that leaves it out would serve unsteered what its operator thinks is steered.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FormatError(f"{folder.name}: is no folder; name the folder that holds the profile folders")
        home = folder.resolve()
        profiles = []
        for path in sorted(folder.iterdir()):
            if path.name.startswith(".") or not path.is_dir():
                continue
            if not path.resolve().is_relative_to(home):
                raise FormatError(f"{path.name}: is a link out of the registry; copy the profile folder into it")
            profile = verify_profile(path, model)
            if profile.name != path.name:
                raise FormatError(
                    f"{path.name}/profile.json: is the profile {profile.name!r}; rename its folder to {profile.name!r}"
                )
            profiles.append(profile)
        if not profiles:
            raise FormatError(f"{folder.name}: holds no profile; make one with `trimtab profile` or copy one into it")
        return cls(profiles)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all profiles, sorted."""
        return tuple(self._profiles)

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
