"""A repository of the Hub as its client keeps it on disk, so that it is there without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_cache(held: Path, repository: Path) -> None:
    """What the Hub's client leaves of one commit: blobs, and a snapshot of links to them."""
    snapshot = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    for number, path in enumerate(sorted(one for one in held.rglob("*") if one.is_file())):
        shutil.copy(path, repository / "blobs" / str(number))
        link = snapshot / path.relative_to(held)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(repository / "blobs" / str(number))
