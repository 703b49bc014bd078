"""Reading files from a folder that came from a stranger, and writing one so that it is never seen half done."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Mapping
from pathlib import Path

from .errors import FormatError, IntegrityError, ProfileError


def read_bytes(folder: Path, name: str, max_bytes: int) -> bytes:
    """The content of a regular file that truly lies in `folder` and holds at most `max_bytes`.

    In a snapshot of the Hub's cache (`snapshots/<revision>/…`) files are links into the `blobs` folder of the same
    repository: these are followed as well.

    Raises:
        FormatError: it is missing, leaves the folder through a link, is no regular file, is too large or unreadable.
    """
    where = f"{folder.name}/{name}"
    path = folder / name
    try:
        home, real = folder.resolve(strict=True), path.resolve(strict=True)
        if not real.is_relative_to(home) and real.parent != _blobs_of(home):
            raise FormatError(
                f"{where}: is a link out of its folder; only links within it, or from a snapshot of the Hub's cache to "
                "that repository's blobs, are followed. Copy the file itself into the folder"
            )
        # Without O_NONBLOCK a named pipe would hold the server for ever at start.
        descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise FormatError(f"{where}: is not a regular file")
            if status.st_size > max_bytes:
                raise FormatError(f"{where}: has {status.st_size:,} bytes; at most {max_bytes:,} are read")
            return file.read(status.st_size)
    except FileNotFoundError as error:
        if path.is_symlink():
            raise FormatError(f"{where}: is a link to nothing; copy the file itself into the folder") from error
        raise FormatError(f"{where}: is missing; every artefact needs it, so copy the folder again whole") from error
    except PermissionError as error:
        raise FormatError(
            f"{where}: may not be read by this user; let it read the folder and its files, or take the folder away"
        ) from error
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a loop of links; ValueError: a NUL in the path
        raise FormatError(f"{where}: cannot be read: {error.__class__.__name__}") from error


def snapshot_of(folder: Path) -> Path | None:
    """The snapshot of the Hub's cache, `<repository>/snapshots/<revision>`, that `folder` is or lies in.

    folder: absolute, without links in it.
    """
    for path in (folder, *folder.parents):
        if path.parent.name == "snapshots" and (path.parent.parent / "blobs").is_dir():
            return path
    return None


def _blobs_of(folder: Path) -> Path | None:
    snapshot = snapshot_of(folder)
    return None if snapshot is None else snapshot.parent.parent / "blobs"


def check_digest(data: bytes, expected: str, where: str) -> None:
    """Raises IntegrityError unless `data` has the sha256 `expected` (hex)."""
    actual = hashlib.sha256(data).hexdigest()
    if actual != expected:
        raise IntegrityError(
            f"{where}: its sha256 is {actual[:12]}… and not {expected[:12]}… as the manifest says; "
            "the file was altered or cut short, so fetch or save it again"
        )


def write_whole(path: Path, content: bytes) -> None:
    """Replace a file in one step: a reader, or a power failure, finds the old content or the new, never a part.

    Raises:
        OSError: the disk refuses; names the file, which a failed write by itself does not.
    """
    fresh = path.with_name(f".{path.name}.new")
    try:
        with open(fresh, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_folder(
    folder: Path, contents: Mapping[str, bytes], *, overwrite: bool, marker: str, durable: bool = True
) -> None:
    """Puts a folder with exactly these files in place in one step: whoever looks sees all of it or none of it.

    The files are written and synced in a sibling whose name begins with a dot, then renamed. A folder that is there
    already is replaced only when it holds the file `marker`. durable: wait until the disk has it, so that it outlives a
    power failure.

    Raises:
        FormatError: the folder exists and `overwrite` is false, or it holds something other than an artefact.
        ProfileError: the disk refused.
    """
    folder = folder.absolute()  # so that "." has a name and a parent
    exists = os.path.lexists(folder)
    if exists and not overwrite:
        raise FormatError(f"{folder.name}: exists already; choose another folder or allow it to be overwritten")
    if exists and (folder.is_symlink() or not (folder / marker).is_file()):
        raise FormatError(f"{folder.name}: exists and holds no artefact of this kind; it will not be overwritten")
    token = secrets.token_hex(4)
    fresh, old = (folder.with_name(f".{folder.name}.{word}-{token}") for word in ("new", "old"))
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        fresh.mkdir()  # not mkdtemp, whose mode 0700 would lock out a server that runs as another user
        for name, data in contents.items():
            with open(fresh / name, "xb") as file:
                file.write(data)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
        if exists:
            folder.rename(old)
        try:
            fresh.rename(folder)
        except OSError:
            if exists:
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)  # only now: until the new folder is in place it is the only copy
    except OSError as error:
        raise ProfileError(f"{folder.name}: cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
