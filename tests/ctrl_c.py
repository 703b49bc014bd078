"""Ctrl-C for programs under test, wherever the tests run."""

from __future__ import annotations

import signal


def heed_ctrl_c() -> None:
    """As `preexec_fn`: what a shell starts in the background ignores Ctrl-C, and so does all that it starts."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
