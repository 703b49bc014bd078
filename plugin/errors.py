"""What can go wrong when a server starts. Errors of artefacts and requests live in `trimtab.vectors.errors`."""

from __future__ import annotations

from trimtab.vectors.errors import TrimtabError

__all__ = ["StartupError"]


class StartupError(TrimtabError):
    """The server cannot steer rightly as it was configured, so it must not start. The message says what to change."""
