"""Faults made on purpose in a running engine. What does not notice them proves nothing.

shuffled   every request of a step gets the rows of another request of the step
stale      every step gets the rows of the step before
unkeyed    steering leaves no trace in the keys of cached blocks
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

_Fill = tuple[Sequence[Any], Any, Any]


class Mutation:
    """Made, it acts; `undo` ends it. changed: names of the requests whose entries were not theirs, in order."""

    def __init__(self, llm: Any, kind: str) -> None:
        from trimtab.plugin.model.arming import tables_of
        from trimtab.plugin.requests import kv
        from trimtab.plugin.steps.entries import TokenEntries

        self.changed: dict[str, None] = {}
        self._kind = kind
        self._runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
        tables: Any = tables_of(self._runner.get_model())
        self._tokens = tables.tokens
        self._fill = self._tokens.fill
        self._right, self._wrong = (TokenEntries(len(self._tokens.entries)) for _ in range(2))
        self._before: _Fill = ((), np.zeros(0, np.int64), np.zeros(0, np.int64))
        self._block_key = kv.block_keys
        self._decisions = tables._decisions
        self._take = self._decisions._take_from
        if kind == "unkeyed":
            setattr(kv, "block_keys", lambda *_: ())  # noqa: B010
        elif kind == "forgotten":
            self._decisions._take_from = self._take_and_forget
        else:
            self._tokens.fill = self._fill_wrongly

    def undo(self) -> None:
        from trimtab.plugin.requests import kv

        setattr(kv, "block_keys", self._block_key)  # noqa: B010
        self._tokens.fill = self._fill
        self._decisions._take_from = self._take

    def _take_and_forget(self, request: Any) -> None:
        self._take(request)
        request.kept = []

    def _fill_wrongly(self, *step: Any) -> None:
        batch, computed, scheduled = step
        if self._kind == "shuffled":
            wrong: _Fill = ([*batch[1:], *batch[:1]], computed, scheduled)
        else:
            wrong, self._before = self._before, (list(batch), computed.copy(), scheduled.copy())
        self._right.fill(*step)
        self._wrong.fill(*wrong)
        ends = np.cumsum(scheduled)
        differs = (self._right.entries != self._wrong.entries).flatten(1).any(dim=1).numpy()
        for name, start, end in zip(self._runner.input_batch.req_ids, ends - scheduled, ends, strict=False):
            if differs[start:end].any():
                self.changed[str(name).partition("-")[0]] = None
        self._fill(*wrong)
