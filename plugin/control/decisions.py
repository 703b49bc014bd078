"""The log of what the access policy decided: a JSON line per decision, in the state folder of the server."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .audit import JsonLines
from .authority import Told

__all__ = ["DECISIONS_FILE", "DecisionLog"]

logger = logging.getLogger("vllm.trimtab")

DECISIONS_FILE = "decisions.jsonl"


class DecisionLog:
    """Told each decision. It writes beside the requests, which wait for no disk, and writes the last before the process
    ends. A disk that refuses ends no request: it is said once in the server's own log."""

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / DECISIONS_FILE)
        self._refused = False
        self._beside = ThreadPoolExecutor(1, "trimtab-decisions")

    def __call__(self, told: Told) -> None:
        self._beside.submit(self._write, told)

    def flush(self) -> None:
        """Wait until all that was told is written."""
        self._beside.submit(lambda: None).result()

    def _write(self, told: Told) -> None:
        try:
            self._lines.write(
                event="decision",
                subject=told.subject,
                rule=told.rule,
                outcome=told.outcome,
                reason=told.reason,
                mode=told.mode,
                profiles=[{"profile": name, "alpha": alpha} for name, alpha in told.profiles],
            )
            self._refused = False
        except OSError as error:
            if not self._refused:
                logger.error("trimtab: the decision log cannot be written (%s); requests go on", error)
            self._refused = True
