"""What a study writes down and a report shows: one JSON file per finding, in one folder.

    RUN/about-*.json       AboutFound       what was studied, and how
    RUN/concepts-*.json    ConceptsFound    concept cards and the quality of a dictionary
    RUN/choice-*.json      ChoiceFound      quality against the number of concepts
    RUN/shift-*.json       ShiftFound       what a fine-tune did to concepts
    RUN/drift-*.json       DriftFound       word overlap with the original against training step
    RUN/sweep-*.json       SweepFound       gain against collateral over layers and strengths
    RUN/answers-*.json     AnswersFound     original → new answers of one steering
    RUN/experiment-*.json  ExperimentFound  what an experiment on strengths says so far
    RUN/table-*.json       TableFound       any table, with the published figures beside ours

Files of pictures are named relative to RUN. Rates come with 95 % intervals.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, NonNegativeInt, ValidationError, model_validator

from .errors import DataError
from .files import write_whole

__all__ = [
    "AboutFound",
    "AnswersFound",
    "ArmFound",
    "ChoiceFound",
    "Concept",
    "ConceptShift",
    "ConceptsFound",
    "DriftFound",
    "Effect",
    "Example",
    "ExperimentFound",
    "Finding",
    "Look",
    "Measured",
    "MetricFound",
    "ServedFound",
    "ShiftFound",
    "SweepFound",
    "SweepPoint",
    "TableFound",
    "TrendFound",
    "holds_findings",
    "read_findings",
    "write_finding",
]

Real = FiniteFloat
Point = tuple[Real, Real]
Interval = tuple[Real, Real]
Verdict = Literal["ship", "stop", "undecided"]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Measured(_Frozen):
    """A figure with its 95 % interval, over n units; how: "wilson", "bootstrap", "normal" or "draws"."""

    value: Real
    low: Real
    high: Real
    n: NonNegativeInt
    how: str


class Finding(_Frozen):
    """kind: how the file's name begins. title, note: the text above and below it."""

    kind: ClassVar[str]
    title: str
    note: str = ""


class AboutFound(Finding):
    """facts: by name, such as "model", "command", "date" or "transformers"; shown in this order."""

    kind: ClassVar[str] = "about"
    facts: dict[str, str]


class Concept(_Frozen):
    """words: from the unembedding, best first. images: of the samples that activate it most, best first.

    questions: what was asked about each of `images`; empty where that was not kept.
    """

    label: str
    rows: NonNegativeInt
    purity: Annotated[Real, Field(ge=0, le=1)]
    words: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _paired(self) -> Self:
        if self.questions and len(self.questions) != len(self.images):
            raise ValueError(f"questions has {len(self.questions)} entries; expected one for each of the images")
        return self


class ConceptsFound(Finding):
    """quality: by name, such as "mean pairwise word overlap" (see docs/method.md §2)."""

    kind: ClassVar[str] = "concepts"
    layer: NonNegativeInt
    method: str
    concepts: tuple[Concept, ...]
    quality: dict[str, Real] = Field(default_factory=dict)


class ChoiceFound(Finding):
    """curves: quality by name, one value for each of `k`."""

    kind: ClassVar[str] = "choice"
    k: tuple[int, ...]
    curves: dict[str, tuple[Real, ...]]
    chosen: int | None = None

    @model_validator(mode="after")
    def _even(self) -> Self:
        _same_length(self.curves, len(self.k), "k")
        return self


class ConceptShift(_Frozen):
    """A concept of the original model (section 3). Cosines in [-1, 1], overlaps in percent, points in the plane."""

    label: str
    rows: NonNegativeInt
    magnitude: Real
    consistency: Real
    pairwise_consistency: Real
    match: str
    cosine_before: Real
    cosine_after: Real
    recovery: Real | None
    overlap_before: Real
    overlap_after: Real
    words_before: tuple[str, ...] = ()
    words_after: tuple[str, ...] = ()
    words_match: tuple[str, ...] = ()
    at: Point
    shifted: Point
    match_at: Point


class ShiftFound(Finding):
    """controls: mean cosine to the match on held-out samples, by name, "per concept" among them."""

    kind: ClassVar[str] = "shift"
    layer: NonNegativeInt
    concepts: tuple[ConceptShift, ...]
    correlations: dict[str, Measured] = Field(default_factory=dict)
    controls: dict[str, Measured] = Field(default_factory=dict)


class DriftFound(Finding):
    """curves: by concept, word overlap with the original in percent, one value for each of `steps`."""

    kind: ClassVar[str] = "drift"
    steps: tuple[int, ...]
    curves: dict[str, tuple[Real, ...]]

    @model_validator(mode="after")
    def _even(self) -> Self:
        _same_length(self.curves, len(self.steps), "steps")
        return self


NO_OTHERS = "–, no other answers"
"""What stands in place of a share of the answers that should stay, where every answer was meant to change."""


class Effect(_Frozen):
    """What a steering did, beside the same model unsteered on the same samples. None: cannot be told of these answers.

    turned: of the answers that were meant to turn, those that did. unchanged: of the same answers, those that turned
    and kept every word that was not meant to turn. strayed: of the same answers, those that became something else.
    off_target: of all other answers, those that changed. stutter, stutter_before: of all answers, those that repeat
    themselves, with and without the steering.
    """

    turned: Measured | None = None
    unchanged: Measured | None = None
    strayed: Measured | None = None
    off_target: Measured | None = None
    stutter: Measured | None = None
    stutter_before: Measured | None = None

    @property
    def no_others(self) -> bool:
        """Whether every answer was meant to turn, so that nothing says what else would have changed."""
        return self.turned is not None and self.off_target is None


class SweepPoint(_Frozen):
    """What one strength did.

    series: the steering that was varied. gained: share of what should change and did. collateral: share of what should
    stay and changed; None where nothing should stay. effect: more of what it did.
    """

    series: str
    layer: NonNegativeInt
    alpha: Real
    split: Literal["dev", "test"]
    gained: Measured
    collateral: Measured | None
    chosen: bool = False
    effect: Effect | None = None


class Control(_Frozen):
    """What was measured on the test split beside a steering, in a few words, and what it did."""

    what: str
    effect: Effect


class SweepFound(Finding):
    kind: ClassVar[str] = "sweep"
    points: tuple[SweepPoint, ...]
    controls: tuple[Control, ...] = ()


class Example(_Frozen):
    """The answers to one sample, before and after. Written as a pair [before, after], it has no more than these.

    picture: its file. mark: what is to be said of it, such as "broken".
    """

    before: str
    after: str
    question: str = ""
    picture: str = ""
    mark: str = ""

    @model_validator(mode="before")
    @classmethod
    def _of_pair(cls, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and len(value) == 2:
            return dict(zip(("before", "after"), value, strict=True))
        return value


class AnswersFound(Finding):
    """flow: (original answer, new answer) → how many. examples: some samples, those to look at first in front.

    data: which data set, in a few words. effect: the figures that head its section, and the steering's row in the
    report's comparison.
    """

    kind: ClassVar[str] = "answers"
    steering: str
    flow: tuple[tuple[str, str, NonNegativeInt], ...]
    examples: tuple[Example, ...] = ()
    data: str = ""
    effect: Effect | None = None


class TableFound(Finding):
    """A cell that is None is left empty. published: which rows hold figures of the paper, not ours."""

    kind: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[str | Real | None, ...], ...]
    published: tuple[NonNegativeInt, ...] = ()
    command: str = ""

    @model_validator(mode="after")
    def _even(self) -> Self:
        if any(len(row) != len(self.columns) for row in self.rows):
            raise ValueError(f"every row has {len(self.columns)} cells, one per column")
        if any(place >= len(self.rows) for place in self.published):
            raise ValueError(f"published names rows from 0 to {len(self.rows) - 1}")
        return self


class MetricFound(_Frozen):
    """A metric of one arm beside the control. Where nothing can be told yet, `difference` and all with it are None.

    difference: value - control, in the metric's unit. fixed: its interval where it is looked at once, at the planned
    size; of several arms, intervals that hold together. sequence: its interval that holds at every look. relative: the
    difference as a share of the control's value, with its fixed interval. p: of no difference, looked at once.
    units: of control and arm that have a value. explained: the share of the variance that the pre-period explains.
    margin: the largest loss that is accepted, for a guardrail.
    """

    name: str
    better: Literal["higher", "lower"]
    state: Literal["better", "worse", "open", "safe", "broken", "unclear"]
    margin: Real | None = None
    control: Real | None = None
    value: Real | None = None
    difference: Real | None = None
    fixed: Interval | None = None
    sequence: Interval | None = None
    relative: tuple[Real, Real, Real] | None = None
    p: Real | None = None
    units: tuple[NonNegativeInt, NonNegativeInt] = (0, 0)
    explained: Real = 0.0
    note: str = ""


class Look(_Frozen):
    """The primary metric's difference after so many units of the experiment, with the interval of every look."""

    units: NonNegativeInt
    difference: Real
    low: Real
    high: Real


class ServedFound(_Frozen):
    """What an arm's requests met. ended: those that a line of the log closed; the shares and medians are of these.

    other: requests that were served something else than their arm. cached: share of the prompt tokens that came out of
    the prefix cache. first_token, per_token: medians in seconds; None where they are not known or may not be compared.
    """

    requests: NonNegativeInt
    ended: NonNegativeInt
    aborted: NonNegativeInt
    failed: NonNegativeInt
    other: NonNegativeInt
    generated: Real | None = None
    cached: Real | None = None
    first_token: Real | None = None
    per_token: Real | None = None


class ArmFound(_Frozen):
    """One arm. steering: in a few words. alpha: where it steers by one profile, 0 where by none. dose: α‖v‖ / ‖h‖.

    units: assigned. measured: of these, with a value of the primary metric. metrics: the primary first; empty for the
    control.
    """

    name: str
    weight: Real
    steering: str
    alpha: Real | None
    dose: Real | None
    units: NonNegativeInt
    measured: NonNegativeInt
    value: Real | None
    error: Real | None
    served: ServedFound
    verdict: Verdict | None = None
    why: tuple[str, ...] = ()
    metrics: tuple[MetricFound, ...] = ()
    looks: tuple[Look, ...] = ()


class TrendFound(_Frozen):
    """The primary metric's slope per 1 of α over all arms of one profile, with its interval, looked at once."""

    slope: Real
    low: Real
    high: Real
    p: Real


class ExperimentFound(Finding):
    """What an experiment says so far.

    arms: the control first. by: whether the interval of every look or that of the planned size decides. mismatch: p of
    units by arm against the weights. missing: p that units with a value of the primary metric follow the weights.
    hints: sentences about what may bias. counted: what was left out or may bias, by name.
    """

    kind: ClassVar[str] = "experiment"
    experiment: str
    seed: str
    verdict: Verdict
    why: tuple[str, ...]
    by: Literal["sequence", "planned"]
    planned_units: NonNegativeInt
    units: NonNegativeInt
    arms: Annotated[tuple[ArmFound, ...], Field(min_length=2)]
    mismatch: Real
    missing: Real
    hints: tuple[str, ...] = ()
    trend: TrendFound | None = None
    counted: dict[str, int] = Field(default_factory=dict)
    plan: str = ""


_KINDS: dict[str, type[Finding]] = {
    one.kind: one
    for one in (
        AboutFound,
        ConceptsFound,
        ChoiceFound,
        ShiftFound,
        DriftFound,
        SweepFound,
        AnswersFound,
        ExperimentFound,
        TableFound,
    )
}


def _same_length(curves: dict[str, tuple[float, ...]], expected: int, of: str) -> None:
    for name, values in curves.items():
        if len(values) != expected:
            raise ValueError(f"curve {name!r} has {len(values)} values; expected one for each of the {expected} {of}")


def write_finding(run: Path, name: str, finding: Finding) -> Path:
    """Write RUN/<kind>-<name>.json in one step; the file."""
    run.mkdir(parents=True, exist_ok=True)
    path = run / f"{finding.kind}-{name}.json"
    write_whole(path, (finding.model_dump_json(indent=1) + "\n").encode())
    return path


def holds_findings(run: Path) -> bool:
    """Whether any file in a folder is called like a finding."""
    return any(path.name.partition("-")[0] in _KINDS for path in run.glob("*.json"))


def read_findings(run: Path) -> dict[str, Finding]:
    """Every finding of a run by its file's name without the ending, in the order of names.

    Raises:
        DataError: no such folder, no finding in it, or a file that is none of ours; names it.
    """
    found: dict[str, Finding] = {}
    for path in sorted(run.glob("*.json")):
        kind = _KINDS.get(path.name.partition("-")[0])
        if kind is None:
            continue
        try:
            found[path.stem] = kind.model_validate_json(path.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the whole"
            raise DataError(f"{path}: is no finding of the kind {kind.kind!r} ({where}: {first['msg']})") from error
    if not found:
        raise DataError(f"{run}: holds no finding; expected files such as {', '.join(f'{k}-….json' for k in _KINDS)}")
    return found
