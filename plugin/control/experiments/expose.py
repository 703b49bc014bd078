"""The exposure log of a server: a line when a request of a unit is admitted, and one when its answer has ended.

One HTTP request is one exposure, whatever number of prompts, choices or turns it has. So its closing waits for the last
of them, and for the end of the answer. It is written beside the requests, which wait for no disk.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trimtab.vectors.experiments import Closing, Exposure
from trimtab.vectors.experiments.exposures import LOG_FILE

from ...requests.decided import Chosen, Decided, Entered, entered_by, record
from ..audit import JsonLines, stamp
from ..finished import About, Finish

__all__ = ["REPLICA", "Exposures", "admitted", "exposure_of", "together"]

logger = logging.getLogger("vllm.trimtab")

REPLICA = "TRIMTAB_REPLICA"
"""The environment variable that names a replica in the log; the name of its host by default."""

admitted: list[Callable[[Chosen, str], None]] = []
"""Told what each admitted prompt gets, and its request id."""

_FILES = 1000  # of 64 MiB each: a log is evidence, and an operator's to delete
_LONGEST_ID = 128


@dataclass(slots=True)
class _Open:
    """An exposure that is not closed. running: its prompts that have not ended. answering: its HTTP answer goes on."""

    answering: bool
    running: int = 0
    ends: list[Finish] = field(default_factory=list)


class Exposures:
    """Told of admissions, of prompts that have ended, and of HTTP answers that have."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = JsonLines(folder / LOG_FILE, files=_FILES)
        self._replica = os.environ.get(REPLICA) or socket.gethostname()
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._refused = False
        self._beside = ThreadPoolExecutor(1, "trimtab-exposures")

    def admitted(self, chosen: Chosen, request_id: str) -> None:
        """Take an admitted prompt."""
        entered = entered_by(chosen)
        if entered is None:
            return
        with self._lock:
            one = self._open.get(entered.exposure_id)
            if one is None:
                found = record()
                one = self._open[entered.exposure_id] = _Open(found is not None and not found.over)
                line = exposure_of(entered, chosen, replica=self._replica, request_id=request_id[:_LONGEST_ID])
                self._beside.submit(self._write, line.fields())
            one.running += 1

    def finished(self, about: About, finish: Finish) -> None:
        """Take a prompt that has ended."""
        with self._lock:
            if (one := self._open.get(about.exposure_id)) is not None:
                one.running -= 1
                one.ends.append(finish)
                self._close(about.exposure_id, one)

    def ended(self, decided: Decided) -> None:
        """Take an HTTP answer that has ended."""
        entered = entered_by(decided.chosen)
        if entered is None:
            return
        with self._lock:
            if (one := self._open.get(entered.exposure_id)) is not None:
                one.answering = False
                self._close(entered.exposure_id, one)

    def flush(self) -> None:
        """Wait until all that was told is written."""
        self._beside.submit(lambda: None).result()

    def _close(self, exposure_id: str, one: _Open) -> None:
        if one.running <= 0 and not one.answering:
            del self._open[exposure_id]
            self._beside.submit(self._write, {**together(one.ends), "exposure_id": exposure_id})

    def _write(self, fields: Mapping[str, Any]) -> None:
        try:
            line = fields if fields.get("event") == "exposure" else Closing(timestamp=stamp(), **fields).fields()
            self._lines.put(line)
            self._refused = False
        except OSError as error:
            if not self._refused:
                logger.error("trimtab: the exposure log cannot be written (%s); requests go on", error)
            self._refused = True


def exposure_of(entered: Entered, chosen: Chosen, *, replica: str, request_id: str) -> Exposure:
    """The line of an exposure. chosen: all that steers, as the headers say it."""
    alphas = [alpha for _, alpha in chosen]
    return Exposure(
        timestamp=stamp(),
        exposure_id=entered.exposure_id,
        experiment=entered.experiment,
        seed=entered.seed,
        variation=entered.variation,
        unit=entered.unit,
        unit_source=entered.unit_source,
        assigned=entered.variation,
        served=entered.served,
        forced=entered.forced,
        profile=", ".join(profile.name for profile, _ in chosen) or None,
        alpha=alphas[0] if len(alphas) == 1 else (", ".join(map(repr, alphas)) or None),
        digest=", ".join(profile.digest for profile, _ in chosen) or None,
        plan=entered.plan,
        replica=replica,
        request_id=request_id,
    )


def together(ends: Sequence[Finish]) -> dict[str, Any]:
    """How a request ended whose prompts ended so, as fields of a `Closing`: tokens in all, and the longest times."""
    reasons = [end.reason for end in ends]
    worst = next((reason for reason in ("error", "abort") if reason in reasons), reasons[-1] if reasons else "unknown")
    tokens = {name: sum(getattr(end, name) for end in ends) for name in _TOKENS}
    times = {name: max(_known(getattr(end, name) for end in ends), default=None) for name in _TIMES}
    return {"finish_reason": worst, **tokens, **times}


_TOKENS = ("prompt_tokens", "generated_tokens", "cached_tokens")
_TIMES = ("queue_s", "first_token_s", "per_token_s", "e2e_s")


def _known(values: Any) -> list[float]:
    return [value for value in values if value is not None]
