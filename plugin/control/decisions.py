"""The log of what the access policy decided: a JSON line per decision, in the state folder of the server."""

from __future__ import annotations

import logging
from pathlib import Path

from .audit import JsonLines
from .authority import Told

__all__ = ["DECISIONS_FILE", "DecisionLog"]

logger = logging.getLogger("vllm.trimtab")

DECISIONS_FILE = "decisions.jsonl"


class DecisionLog:
    """Told each decision. A disk that refuses ends no request: it is said once in the server's own log."""

    def __init__(self, folder: Path) -> None:
        self._lines = JsonLines(folder / DECISIONS_FILE)
        self._refused = False

    def __call__(self, told: Told) -> None:
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
