"""The command `trimtab`."""

from __future__ import annotations

import signal
import sys

__all__ = ["main"]

_EXTRAS = {"openai": "evaluate", "pycocoevalcap": "evaluate", "tenacity": "evaluate", "tea_tasting": "ab"}
"""The extra that brings a package; "offline" brings all others."""


def main() -> None:
    """Entry point of the console script. A package that is not installed is one sentence and exit code 2."""
    # A scheduler's stop ends a command as Ctrl-C does: it says what is kept, and leaves no engine and no folder behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        from .app import app

        app()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package in ("", "trimtab"):
            raise
        extra = _EXTRAS.get(package, "offline")
        print(
            f"trimtab: needs the package {package!r}, which is not installed; install it with "
            f"pip install 'trimtab[{extra}]'",
            file=sys.stderr,
        )
        sys.exit(2)
