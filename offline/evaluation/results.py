"""From answers to results: figures of a run, and of a steered run against the unsteered one.

OUT/results.json            figures, skipped samples, conversion matrix
OUT/table-*.json            the figures as a table, for the report (see `findings`)
OUT/answers-*.json          the conversion matrix and some examples, for the report
OUT/thumbnails/*.png        pictures of the examples
OUT/<as the data set has it>  answers for its official evaluator
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import DataError, SettingError
from ..files import write_whole
from ..findings import AnswersFound, TableFound, write_finding
from .answers import Answered, RunRequest, Served, read_answers, texts
from .benchmark import Answers, Benchmark, Scores
from .effect import effect_of
from .examples import Picked, picked, with_pictures
from .rates import conversions, lumped, occurrences
from .repetition import repetition
from .tables import compared_rows, head_rows, head_sentence, note, rows_of, steering_in_words

__all__ = ["Results", "Run", "check_alike", "compared", "labels_of", "read_run", "results", "write_results"]

_MOST_LABELS = 20
_MUST_AGREE = ("format", "data", "samples", "seed", "model", "prompt", "max_tokens", "temperature", "extra")
_LUMPED = f"The {_MOST_LABELS} most frequent answers; the others are one."


@dataclass(frozen=True)
class Run:
    """A finished run: what was asked, what came, and who steered."""

    request: RunRequest
    answered: dict[str, Answered]
    served: Served | None = None

    @property
    def texts(self) -> dict[str, str]:
        return texts(self.answered.values())


@dataclass(frozen=True)
class Results:
    """content: results.json. The findings are for the report; `flow` is None without a run to compare with.

    shown: the samples of `flow.examples`, whose pictures are written beside it.
    """

    content: dict[str, Any]
    table: TableFound
    flow: AnswersFound | None
    submission: dict[str, str]
    shown: tuple[Picked, ...] = ()


def read_run(folder: Path) -> Run:
    """A finished run from its folder; raises DataError."""
    return Run(*read_answers(folder))


def results(benchmark: Benchmark, run: Run, command: str = "") -> Results:
    """Figures of one run."""
    scores = _scored(benchmark, run)
    table = TableFound(
        title=f"{run.request.format}: {_steering(run)}",
        note=note(*scores.notes, warnings=scores.warnings),
        columns=("figure", "value", "95 % interval", "n"),
        rows=rows_of(scores),
        command=command,
    )
    return Results(_told(run, scores), table, None, scores.submission)


def compared(
    benchmark: Benchmark, before: Run, after: Run, mapping: Mapping[str, str] | None = None, command: str = ""
) -> Results:
    """Figures of a steered run beside those of an unsteered one, and what became of each answer.

    mapping: original → target answer, what the steering was meant to do; without it what the data set is usually
    steered for, and where there is no such thing, every change is off target. What only one of the runs has an answer
    to is left out of both.

    Raises:
        SettingError: the two were asked different things, or the mapping has no meaning here (see `labels_of`).
    """
    check_alike(before.request, after.request)
    meant = labels_of(benchmark, mapping or {}, before) or dict(benchmark.usual)
    before, after, alone = _both(before, after)
    old, new = before.texts, after.texts
    base, scores = _scored(benchmark, before), _scored(benchmark, after)
    labelled = [{one: benchmark.label(one, text) for one, text in run.items()} for run in (old, new)]
    flow = conversions(*labelled)
    effect = effect_of(old, new, benchmark.label, meant, benchmark.same)
    examples = picked(benchmark, after.request.prompt, old, new, meant)
    change = {name: one for name, one in benchmark.compare(old, new).items() if one.n}
    words = sorted({word for pair in (mapping or {}).items() for word in pair})
    content = {
        **_told(after, scores),
        "against": _told(before, base),
        "change": {name: one.model_dump() for name, one in change.items()},
        "flips": {name: one for name, one in effect.model_dump().items() if one is not None},
        "broken": examples.broken,
        "answered_in_one_run_only": alone,
        "occurrences": {word: _counts(word, old, new) for word in words},
        "conversions": [[a, b, n] for (a, b), n in sorted(flow.items(), key=lambda one: (-one[1], one[0]))],
    }
    apart = (f"{alone:,} samples that only one of the runs has an answer to are left out of both.",) if alone else ()
    table = TableFound(
        title=f"{after.request.format}: {_steering(before)} and {_steering(after)}",
        note=note(*scores.notes, *apart, warnings=scores.warnings),
        columns=("figure", _steering(before), "95 % interval", _steering(after), "95 % interval"),
        rows=(*head_rows(effect), *compared_rows(base, scores, change)),
        command=command,
    )
    frequent = Counter(label for run in labelled for label in run.values()).most_common(_MOST_LABELS)
    found = AnswersFound(
        title=f"{after.request.format}: what {_steering(after)} made of each answer",
        note=note(
            head_sentence(effect),
            *([f"Meant: {', '.join(f'{a} → {b}' for a, b in meant.items())}."] if meant else []),
            *([f"{len(examples.broken):,} answers are broken; the examples begin with them."] * bool(examples.broken)),
            *([_LUMPED] if len(frequent) == _MOST_LABELS else []),
        ),
        steering=_steering(after),
        flow=tuple(lumped(flow, {label for label, _ in frequent})),
        examples=tuple(one.example for one in examples.shown),
        data=after.request.format,
        effect=effect,
    )
    return Results(content, table, found, scores.submission, examples.shown)


def labels_of(benchmark: Benchmark, mapping: Mapping[str, str], before: Run) -> dict[str, str]:
    """A mapping between words as one between labels: {"two": "three"} is {"2": "3"} where labels are normalised.

    Raises:
        SettingError: a word has no label here, both sides have the same one, one label is mapped to two, or no answer
            of the unsteered run has a source's label.
    """
    found: dict[str, str] = {}
    seen = Counter(benchmark.label(one, text) for one, text in before.texts.items())
    for pair in mapping.items():
        source, target = map(benchmark.mapped, pair)
        where = f"--map {pair[0]}={pair[1]}"
        if source == target:
            raise SettingError(f"{where}: both are {source!r} here; map to another answer")
        if found.setdefault(source, target) != target:
            raise SettingError(f"{where}: {source!r} is mapped to {found[source]!r} already; choose one")
        if not seen[source]:
            often = ", ".join(repr(label) for label, _ in seen.most_common(5))
            raise SettingError(
                f"{where}: no answer of the unsteered run is {source!r}; map one that occurs, the most frequent are "
                f"{often}"
            )
    return found


def write_results(out: Path, name: str, found: Results) -> Path:
    """Write everything into a run's folder; the path of results.json."""
    for file, content in found.submission.items():
        write_whole(out / file, content.encode())
    write_finding(out, name, found.table)
    if found.flow is not None:
        write_finding(out, name, found.flow.model_copy(update={"examples": with_pictures(found.shown, out)}))
    path = out / "results.json"
    write_whole(path, (json.dumps(found.content, indent=1, ensure_ascii=False) + "\n").encode())
    return path


def _scored(benchmark: Benchmark, run: Run) -> Scores:
    known = {sample.id for sample in benchmark.samples}
    if strangers := run.answered.keys() - known:
        raise DataError(
            f"an answer to {min(strangers)!r}, which the data set does not hold; give the data set that the run asked"
        )
    if not run.texts:
        reasons = sorted({str(one.skipped) for one in run.answered.values()})
        raise DataError(f"no sample was answered: {'; '.join(reasons)}; are the pictures where --images says?")
    scores = benchmark.score(run.texts)
    stutter, varied = repetition(run.texts.values())
    measured = {**scores.measured, "answers that stutter": stutter}
    return replace(
        scores,
        measured={name: one for name, one in measured.items() if one.n},
        plain={**scores.plain, **varied},
    )


def _both(before: Run, after: Run) -> tuple[Run, Run, int]:
    """The two runs without the samples that only one of them has an answer to, and how many these are."""
    alone = before.texts.keys() ^ after.texts.keys()
    if not alone:
        return before, after, 0
    kept = [
        replace(run, answered={one.id: one for one in run.answered.values() if one.text is None or one.id not in alone})
        for run in (before, after)
    ]
    return kept[0], kept[1], len(alone)


def _told(run: Run, scores: Scores) -> dict[str, Any]:
    skipped = Counter(one.skipped for one in run.answered.values() if one.skipped is not None)
    return {
        "request": run.request.model_dump(),
        "served": None if run.served is None else run.served.model_dump(),
        "answered": len(run.texts),
        "skipped": dict(sorted(skipped.items())),
        "cut_at_max_tokens": sum(one.cut for one in run.answered.values()),
        "measured": {name: one.model_dump() for name, one in scores.measured.items()},
        "plain": scores.plain,
        "notes": list(scores.notes),
        "warnings": [*scores.warnings, *_empty(run)],
    }


def check_alike(before: RunRequest, after: RunRequest) -> None:
    """Two runs can be compared when they differ in nothing but the steering.

    Raises:
        SettingError: they differ in more.
    """
    for name in _MUST_AGREE:
        if getattr(before, name) != getattr(after, name):
            raise SettingError(
                f"--against: that run has {name} {getattr(before, name)!r}, this one {getattr(after, name)!r}; "
                "compare runs that differ in nothing but the steering"
            )


def _counts(word: str, old: Answers, new: Answers) -> dict[str, dict[str, int]]:
    return {"before": asdict(occurrences(old.values(), word)), "after": asdict(occurrences(new.values(), word))}


def _empty(run: Run) -> list[str]:
    """What there is to say of answers without text."""
    empty = [one for one in run.answered.values() if one.text is not None and not one.text.strip()]
    if not empty:
        return []
    reasoned = sum(one.reasoned for one in empty)
    why = (
        f"; in {reasoned:,} the server gave nothing but reasoning: raise --max-tokens, or serve without reasoning"
        if reasoned
        else ""
    )
    return [f"{len(empty):,} of {len(run.texts):,} answers are empty{why}"]


def _steering(run: Run) -> str:
    return steering_in_words(run.request.steering, run.served)
