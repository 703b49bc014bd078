"""A small disk that can be full or read-only. Needs the right to mount (root)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAGE = 4096
"""Bytes that the smallest file takes on it."""


class SmallDisk:
    """A file system of `pages` pages at `path`, in memory.

    Raises:
        PermissionError: this user may not mount.
    """

    def __init__(self, path: Path, pages: int = 1024) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        size = f"size={pages * PAGE}"
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", size, "none", path], capture_output=True, text=True)
        if made.returncode:
            raise PermissionError(f"no disk could be mounted: {made.stderr.strip()}")

    def close(self) -> None:
        subprocess.run(["umount", "-l", self.path], check=True)

    @contextmanager
    def full(self, but: int) -> Iterator[None]:
        """While it has no more than `but` free pages."""
        ballast = self.path / "ballast"
        free = os.statvfs(self.path)
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(1, free.f_bavail - but) * free.f_bsize)
        try:
            yield
        finally:
            ballast.unlink()

    @contextmanager
    def read_only(self) -> Iterator[None]:
        """While nothing can be written: files that are opened from now on, as on a disk that failed."""
        aside = self.path.with_name(f"{self.path.name}.aside")
        aside.mkdir()
        # Made read-only where nobody writes, since it is refused while a file is open for writing there.
        subprocess.run(["mount", "--bind", self.path, aside], check=True)
        subprocess.run(["mount", "-o", "remount,bind,ro", aside], check=True)
        subprocess.run(["mount", "--bind", aside, self.path], check=True)
        subprocess.run(["umount", aside], check=True)
        aside.rmdir()
        try:
            yield
        finally:
            subprocess.run(["umount", "-l", self.path], check=True)
