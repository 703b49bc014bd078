"""Which concepts the gates of a worker choose: counted on the device, and brought to /metrics every two seconds.

A worker counts in the folder that all processes of a server share (see `control.begin.share_metrics`), so nothing has
to be sent to a front end, and under data parallelism each engine counts its own tokens. Workers of one tensor-parallel
group compute the same, so the first of them counts. A worker on another machine has a folder of its own, which no
/metrics reads.

Counts are read between two steps, never while the model may be asleep, with its tables out of memory: a sleeping engine
makes no steps with tokens. A step without tokens tells that nothing runs any more. It comes after the last request, so
that the counts of the last seconds do not wait for the next one.

Leans on vllm/v1/worker/gpu_model_runner.py and vllm/v1/worker/gpu/model_runner.py: GPUModelRunner.execute_model, which
begins each step and, under model runner V2, each dummy run as well (0.29 to 0.32).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from prometheus_client import Counter, Gauge

from ..compat.wrapping import wrap
from ..model.arming import tables_of
from ..model.chosen import Chosen, chosen_in
from ..model.tables import SteeringTables
from ..steps.drift import Window

__all__ = ["ConceptCounts", "counts_of", "watch"]

OUTSIDE = "outside"
"""The concept of a state that is too far from the nearest one."""

_EVERY = 2.0  # seconds
_COUNTS = "trimtab_concepts"
"""The attribute of a model runner that holds its `ConceptCounts`, or None where another worker counts."""

_ACTIVE = Counter(
    "trimtab_concept_active",
    "Positions, by the concept that the gate of a fine profile chose.",
    ["profile", "layer", "concept"],
)
_DRIFT = Gauge(
    "trimtab_concept_drift",
    "Population stability index of the concepts of the last requests against those that the profile expects.",
    ["profile", "layer"],
    # Of several engines: the index is convex in the shares, so no mixture of their traffic has a larger one.
    multiprocess_mode="max",
)


def watch(runner_class: type) -> None:
    """Let the model runners of a class bring out what is counted. Safe to call again."""
    wrap(runner_class, "execute_model", _execute)


def _execute(original: Callable[..., Any], self: Any, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
    if not kwargs.get("dummy_run"):
        counts = counts_of(self)
        if counts is not None:
            counts.before_step(idle=not scheduler_output.total_num_scheduled_tokens)
    return original(self, scheduler_output, *args, **kwargs)


def counts_of(runner: Any) -> ConceptCounts | None:
    """What a model runner counts; None where it has no tables, or another worker counts the same."""
    try:
        found: ConceptCounts | None = getattr(runner, _COUNTS)
    except AttributeError:
        config, tables = runner.vllm_config, tables_of(runner.get_model())
        parallel = config.parallel_config
        first = parallel.rank % parallel.tensor_parallel_size == 0
        sleeps = bool(config.model_config.enable_sleep_mode)
        found = ConceptCounts(tables, sleeps=sleeps) if tables is not None and first else None
        setattr(runner, _COUNTS, found)
    return found


class ConceptCounts:
    """What has been brought out of the tables of a worker. sleeps: whether its engine can be put to sleep."""

    def __init__(self, tables: SteeringTables, *, sleeps: bool = False) -> None:
        self._tables = tables
        self._sleeps = sleeps
        self._due = 0.0
        self._seen: dict[tuple[str, int], _Seen] = {}
        self._read: tuple[object, list[torch.Tensor]] | None = None

    def before_step(self, *, idle: bool) -> None:
        """Bring out what is counted, where that is due. idle: the step has no tokens."""
        if (idle and not self._sleeps) or (not idle and time.monotonic() >= self._due):
            self.read()
            self._due = time.monotonic() + _EVERY

    def read(self) -> None:
        """Bring out what was counted since the last time."""
        if not self._changed():
            return
        chosen = chosen_in(self._tables)
        self._seen = {one.key: self._seen.get(one.key) or _Seen(one) for one in chosen}
        drifts: dict[tuple[str, int], tuple[int, float]] = {}
        for one in chosen:
            came, index = self._seen[one.key].add(one)
            # Of two versions of a profile, the one that serves more.
            if index is not None and came >= drifts.get((one.name, one.layer), (0, 0.0))[0]:
                drifts[one.name, one.layer] = came, index
        for (name, layer), (_, index) in drifts.items():
            _DRIFT.labels(name, layer).set(index)

    def _changed(self) -> bool:
        """Whether anything was counted or loaded since the last time: where nobody is steered, a step costs no more."""
        came = tuple(self._tables.loaded), dict(self._tables.requests)
        now = came, [table.counts.cpu().clone() for table in self._tables.layers.values()]
        before, self._read = self._read, now
        return before is None or now[0] != before[0] or not all(map(torch.equal, now[1], before[1]))


class _Seen:
    """One loaded profile at one layer: what was counted up to now, and the window of its drift."""

    def __init__(self, one: Chosen) -> None:
        concepts = [*map(str, range(len(one.decided) - 1)), OUTSIDE]
        # From zero on, so that the first one is an increase.
        self._series = [_ACTIVE.labels(one.name, one.layer, concept) for concept in concepts]
        self._decided = np.zeros_like(one.decided)
        self._kept = np.zeros_like(one.kept)
        self._requests = 0
        self._window = Window(len(one.decided))

    def add(self, one: Chosen) -> tuple[int, float | None]:
        """Returns how many requests came since the last time, and the drift where it is known."""
        decided, positions = one.decided - self._decided, one.decided + one.kept - self._decided - self._kept
        came = one.requests - self._requests
        self._decided, self._kept, self._requests = one.decided, one.kept, one.requests
        for place in positions.nonzero()[0].tolist():
            self._series[place].inc(int(positions[place]))
        if came or decided.any():
            self._window.add(came, decided)
        return came, None if one.expected is None else self._window.index(one.expected)
