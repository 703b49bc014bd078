"""The folder that all processes of a server share.

    generation.json    what is served, replaced by a rename
    versions/CONTENT   the files of each resident version, so that every process reads the bytes that were verified
    policies/SHA256    the last access policies, likewise
    plans/SHA256       the last plans of experiments, likewise
    phases.json        what every plan has run, by seed
    draining           there while the server is about to end
    lock               held by the one process that makes a change; `server.lock` by the server that uses the folder

Workers do not read it, because they may be on other machines.
"""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from trimtab.vectors import Profile, load_profile, save_profile
from trimtab.vectors.errors import FormatError, IntegrityError, ProfileError
from trimtab.vectors.files import read_bytes, write_whole

from .generation import Generation

__all__ = ["Stamp", "State"]

GENERATION_FILE = "generation.json"
PHASES_FILE = "phases.json"
_MOST_BYTES = 1 << 20
_KEPT = 4  # files of a kind that stay: one that follows late may still ask for the last one
_PAUSE = 0.005  # seconds between two tries for the lock

Stamp = tuple[int, int, int]
"""What tells one generation.json from the next."""


class State:
    """A state folder.

    Raises:
        ProfileError: of each method that writes, when the disk refuses.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._generation = str(folder / GENERATION_FILE)
        self.draining = folder / "draining"
        """There while the server is about to end."""

    def begin(self) -> Generation | None:
        """Take the folder for a server that starts, and return the last generation of the one before.

        It is this process's until it ends, or `release`.

        Raises:
            FormatError: its generation.json is not readable, or of a version that this trimtab does not know.
            ProfileError: another server uses it, or it cannot be written.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._taken = os.open(self.folder / "server.lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._taken, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.draining.unlink(missing_ok=True)
            shutil.rmtree(self.folder / "versions", ignore_errors=True)
            (self.folder / "versions").mkdir()
        except BlockingIOError as error:
            raise ProfileError(
                f"{self.folder.name}: another server uses this state folder; give each its own --steering-state"
            ) from error
        except OSError as error:
            raise self._cannot_write(error) from error
        return self.read() if os.path.exists(self._generation) else None

    def release(self) -> None:
        """Let another server take the folder."""
        os.close(self._taken)

    def stamp(self) -> Stamp:
        """Of the generation.json that is there: one stat. Raises FormatError where none is."""
        try:
            found = os.stat(self._generation)
        except OSError as error:
            raise FormatError(
                f"{GENERATION_FILE}: cannot be read ({error.strerror}), so nobody knows what this server may serve; "
                "leave the state folder alone while a server runs, and restart it"
            ) from error
        return found.st_mtime_ns, found.st_ino, found.st_size

    def read(self) -> Generation:
        """The generation that is published. Raises FormatError."""
        return Generation.parse(read_bytes(self.folder, GENERATION_FILE, _MOST_BYTES), GENERATION_FILE)

    def publish(self, generation: Generation) -> None:
        """Let every process see `generation` at its next request."""
        try:
            write_whole(Path(self._generation), generation.dump(GENERATION_FILE))
        except OSError as error:
            raise self._cannot_write(error) from error

    def forget(self, generation: Generation) -> None:
        """Delete the files of versions that `generation` does not name."""
        for path in (self.folder / "versions").iterdir():
            if path.name not in generation.contents:
                shutil.rmtree(path, ignore_errors=True)

    def keep(self, profile: Profile) -> None:
        """Write a version that was verified, so that every process reads the same."""
        home = self.folder / "versions" / profile.content_digest
        if not home.exists():
            save_profile(profile, home, durable=False)  # the next start makes it anew

    def load(self, content: str) -> Profile:
        """A version that was kept. Raises ProfileError where it is damaged or gone."""
        profile = load_profile(self.folder / "versions" / content)
        if profile.content_digest != content:
            raise IntegrityError(
                f"{profile.name}: is not the version that was kept; leave the state folder alone while a server runs"
            )
        return profile

    def keep_policy(self, data: bytes) -> str:
        """Keep the file of an access policy, and return its sha256 (hex). The oldest ones are deleted.

        Raises:
            ProfileError: the disk refuses.
        """
        return self._keep_file("policies", data)

    def policy(self, digest: str) -> bytes:
        """The file of an access policy that was kept. Raises ProfileError where it is damaged or gone."""
        return self._kept_file("policies", digest)

    def keep_plan(self, data: bytes) -> str:
        """Keep the file of a plan of experiments, as `keep_policy`."""
        return self._keep_file("plans", data)

    def plan(self, digest: str) -> bytes:
        """The file of a plan of experiments that was kept, as `policy`."""
        return self._kept_file("plans", digest)

    def keep_phases(self, data: bytes) -> None:
        """Raises ProfileError where the disk refuses."""
        try:
            write_whole(self.folder / PHASES_FILE, data)
        except OSError as error:
            raise self._cannot_write(error) from error

    def phases(self) -> bytes | None:
        """What `keep_phases` has kept; None for nothing. Raises FormatError where it cannot be read."""
        if not os.path.lexists(self.folder / PHASES_FILE):
            return None
        return read_bytes(self.folder, PHASES_FILE, _MOST_BYTES)

    def _keep_file(self, kind: str, data: bytes) -> str:
        digest = hashlib.sha256(data).hexdigest()
        home = self.folder / kind
        try:
            home.mkdir(exist_ok=True)
            write_whole(home / digest, data)
            kept = sorted(home.iterdir(), key=lambda path: path.stat().st_mtime_ns)
            for path in kept[:-_KEPT]:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise self._cannot_write(error) from error
        return digest

    def _kept_file(self, kind: str, digest: str) -> bytes:
        data = read_bytes(self.folder / kind, digest, _MOST_BYTES)
        if hashlib.sha256(data).hexdigest() != digest:
            raise IntegrityError(f"a file in {kind} was altered; leave the state folder alone while a server runs")
        return data

    @asynccontextmanager
    async def changing(self) -> AsyncIterator[None]:
        """The only one of all processes to make a change.

        Raises:
            ProfileError: the disk refuses.
        """
        try:
            lock = open(self.folder / "lock", "ab")  # noqa: SIM115  # so that only its own failure is put into words
        except OSError as error:
            raise self._cannot_write(error) from error
        with lock as file:
            while True:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_PAUSE)
            yield

    def _cannot_write(self, error: OSError) -> ProfileError:
        return ProfileError(
            f"{self.folder.name}: the state folder cannot be written ({error.strerror}); give --steering-state a "
            "folder that the server's user can write, with room on its disk"
        )
