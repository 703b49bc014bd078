"""A log of JSON lines that several processes write: one line per event, whole or absent, rotated, without secrets."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prometheus_client import Counter

from trimtab.vectors.errors import printable

__all__ = ["JsonLines", "redacted", "stamp"]

_FAILURES = Counter("trimtab_log_failures", "Lines of a log that could not be written.", ["log"])
HIDDEN = "[redacted]"
_LONGEST = 2000  # characters of one text
_SECRET_FIELDS = re.compile(r"key|token|secret|password|authorization|cookie|credential", re.IGNORECASE)
# What a secret looks like wherever it stands: after a scheme of authorization, or by the prefix that its maker gave it.
_SECRETS = re.compile(r"(?i)\b(bearer|basic|token)\s+\S+|\b(sk|hf|ghp|glpat|xox[a-z])[-_][A-Za-z0-9_-]{8,}")


def redacted(value: Any, field: str = "") -> Any:
    """`value` without secrets: texts in fields that hold some, and what looks like one, are replaced."""
    if isinstance(value, Mapping):
        return {str(key): redacted(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner, field) for inner in value]
    if isinstance(value, str):
        return HIDDEN if _SECRET_FIELDS.search(field) else _SECRETS.sub(HIDDEN, printable(value[:_LONGEST]))
    return value


def stamp() -> str:
    """The time in UTC, to the millisecond (ISO 8601)."""
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"


class JsonLines:
    """A log file.

    Args:
        path: of the newest file; older ones end in .1, .2, … Its name up to the first dot is a label on /metrics.
        most_bytes: size at which a new file is begun. files: how many older ones are kept.
    """

    def __init__(self, path: Path, *, most_bytes: int = 64 << 20, files: int = 5) -> None:
        self.path = path
        self._most_bytes = most_bytes
        self._files = files
        self._lock = path.with_name(f".{path.name}.lock")
        self._failures = _FAILURES.labels(path.name.partition(".")[0])

    def write(self, **fields: Any) -> str:
        """Append one line, with the time (UTC) in front, and return it.

        Raises:
            OSError: the disk refuses; nothing was written.
        """
        return self.put({"time": stamp(), **fields})

    def put(self, fields: Mapping[str, Any]) -> str:
        """As `write`, without the time."""
        line = json.dumps(redacted(fields), ensure_ascii=False)
        data = (line + "\n").encode("utf-8", "backslashreplace")
        try:
            with open(self._lock, "ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._rotate(len(data))
                self._append(data)
        except OSError:
            self._failures.inc()
            raise
        return line

    def _append(self, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            try:
                written = os.write(descriptor, data)
                if written < len(data):  # the disk is full: no half lines
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)

    def _rotate(self, coming: int) -> None:
        if not self.path.exists() or self.path.stat().st_size + coming <= self._most_bytes:
            return
        for number in range(self._files, 0, -1):
            older = self._older(number)
            if older.exists():
                os.replace(older, self._older(number + 1))
        self._older(self._files + 1).unlink(missing_ok=True)
        os.replace(self.path, self._older(1))

    def _older(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")
