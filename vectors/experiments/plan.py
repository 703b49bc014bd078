"""What a plan of experiments says: pydantic models that refuse every unknown field and every number out of range.

version: 1
layers:
  strength: {seed: s-2026-11, holdout: 0.02}
experiments:
  gender-alpha:
    layer: strength
    range: [0.0, 0.5]
    seed: ga-1
    unit: [steering.unit, X-Session-ID, user]
    coverage: 0.10
    arms:
      control: {weight: 1, steering: none}
      a08: {weight: 1, steering: {profile: gender-neutral, alpha: 0.8}}
    planned_units: 20000
    metrics: {primary: gendered_rate, guardrails: {refusal_rate: {margin: 0.005}}}
    status: running
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictStr

from ..asked import Asked, wish_of
from ..decode import Natural, Real
from ..document import DocumentError, Fault, parse_document
from ..errors import RequestError

__all__ = [
    "UNIT_SOURCES",
    "Arm",
    "Experiment",
    "Guardrail",
    "Layer",
    "Metrics",
    "Plan",
    "PlanError",
    "Primary",
    "UnitSource",
    "read_plan",
]

UnitSource = Literal["steering.unit", "X-Session-ID", "user", "conversation"]
UNIT_SOURCES: tuple[UnitSource, ...] = ("steering.unit", "X-Session-ID", "user", "conversation")
"""Where a unit may come from."""

RESERVED_ARMS = frozenset({"none", "named"})
"""What `served` says in the log where a client chose for itself."""

_UNKNOWN = "is no key of a plan here (docs/experiments.md has them all)"
_STATUS = re.compile(r"draft|running|stopped(?:\(([^()]+)\))?")


class PlanError(DocumentError):
    """A plan that cannot be used, so that nothing of it is."""


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", text):
        raise ValueError(
            f"{text[:80]!r} is no name here; allowed are 1 to 63 of a-z, 0-9, '.', '_' and '-', beginning with a "
            "letter or a digit"
        )
    return text


def _arm_name(text: str) -> str:
    if _name(text) in RESERVED_ARMS:
        raise ValueError(f"{text!r} is reserved; choose another name for the arm")
    return text


def _seed(text: str) -> str:
    # It is the salt of a hash, which has 16 bytes.
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,16}", text):
        raise ValueError(f"{text[:80]!r} is no seed; allowed are 1 to 16 letters, digits, '.', '_' and '-'")
    return text


def _status(text: str) -> str:
    if not _STATUS.fullmatch(text):
        raise ValueError("should be draft, running, stopped or stopped(ARM)")
    return text


def _steering(value: Any) -> Any:
    try:
        wish = wish_of(value)
    except RequestError as error:
        raise ValueError(str(error)) from None
    if wish.experiment is not None or wish.unit is not None:
        raise ValueError("should name profiles, or be none, or null for the server's default")
    if any(one.alpha is not None and not math.isfinite(one.alpha) for one in wish.profiles or ()):
        raise ValueError("has an alpha that is no finite number")
    return value


def _primary(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


Name = Annotated[StrictStr, AfterValidator(_name)]
ArmName = Annotated[StrictStr, AfterValidator(_arm_name)]
Seed = Annotated[StrictStr, AfterValidator(_seed)]
Share = Annotated[Real, Field(ge=0, le=1)]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Layer(_Frozen):
    """Experiments of one layer never share a unit. holdout: the share of units that none of them gets."""

    seed: Seed
    holdout: Share = 0.0


class Arm(_Frozen):
    """weight: its share of the units, relative to those of the other arms.

    steering: what a `steering` field may hold to name profiles, or "none"; null for the server's default.
    """

    weight: Annotated[Real, Field(gt=0, le=1e6)] = 1.0
    steering: Annotated[Any, AfterValidator(_steering)]

    @property
    def profiles(self) -> tuple[Asked, ...] | None:
        """None for the server's default, () for none."""
        return wish_of(self.steering).profiles


class _Metric(_Frozen):
    """kind: "ratio" divides the sums of a unit by those of `denominator`, another column of the outcomes."""

    better: Literal["higher", "lower"] = "higher"
    kind: Literal["mean", "ratio"] = "mean"
    denominator: StrictStr | None = None


class Primary(_Metric):
    """The metric that decides."""

    name: StrictStr


class Guardrail(_Metric):
    """A metric that must not get worse than the control's by more than `margin`, in its own unit."""

    margin: Annotated[Real, Field(ge=0)]
    better: Literal["higher", "lower"] = "lower"


class Metrics(_Frozen):
    """What is measured. The server reads none of it."""

    primary: Annotated[Primary, BeforeValidator(_primary)]
    guardrails: dict[StrictStr, Guardrail] = Field(default_factory=dict)


class Experiment(_Frozen):
    """One experiment.

    layer: its name. range: of the layer, [from, to) with 0 ≤ from < to ≤ 1. seed: a new one assigns all units anew.
    unit: where the unit of a request is looked for, in this order. coverage: the share of units in the range that take
    part. arms: in the order of the file. planned_units: how many units the fixed-horizon analysis waits for.
    status: draft, running, stopped (everybody gets the server's default) or stopped(ARM) (everybody gets that arm).
    """

    layer: Name
    range: tuple[Share, Share] = (0.0, 1.0)
    seed: Seed
    unit: Annotated[tuple[UnitSource, ...], Field(min_length=1)] = ("steering.unit", "X-Session-ID", "user")
    coverage: Share
    arms: Annotated[dict[ArmName, Arm], Field(min_length=2)]
    planned_units: Annotated[Natural, Field(ge=1)] | None = None
    metrics: Metrics | None = None
    status: Annotated[StrictStr, AfterValidator(_status)] = "draft"

    @property
    def control(self) -> str:
        """The arm that the others are compared with: the one named "control", else the first."""
        return "control" if "control" in self.arms else next(iter(self.arms))

    @property
    def running(self) -> bool:
        return self.status == "running"

    @property
    def stopped_with(self) -> str | None:
        """The arm that everybody gets, after `stopped(ARM)`."""
        found = _STATUS.fullmatch(self.status)
        return None if found is None else found[1]


class Plan(_Frozen):
    """All experiments of a server, by name."""

    version: Literal[1]
    layers: dict[Name, Layer] = Field(default_factory=dict)
    experiments: dict[Name, Experiment] = Field(default_factory=dict)

    @property
    def digest(self) -> str:
        """sha256 (hex) over all that it says, the order of arms included: equal for two files that mean the same."""
        content = json.dumps(self.model_dump(mode="json"), sort_keys=False)
        return hashlib.sha256(b"trimtab plan 1\n" + content.encode()).hexdigest()


def read_plan(data: bytes | str) -> Plan:
    """The plan in a file of YAML: all of it, or an error.

    Raises:
        PlanError: says all that is wrong, by line.
    """
    return parse_document(data.encode() if isinstance(data, str) else data, Plan, _UNKNOWN, _faults, error=PlanError)


def _faults(plan: Plan) -> Iterator[Fault]:
    """What its parts say of each other."""
    for name, one in plan.experiments.items():
        place = ("experiments", name)
        if one.layer not in plan.layers:
            known = ", ".join(plan.layers) or "none at all"
            yield (*place, "layer"), f"there is no layer {one.layer!r}; there are: {known}"
        if not one.range[0] < one.range[1]:
            yield (*place, "range"), f"{one.range[0]:g} to {one.range[1]:g} is an empty range"
        if len(set(one.unit)) < len(one.unit):
            yield (*place, "unit"), "names a source twice"
        if (arm := one.stopped_with) is not None and arm not in one.arms:
            yield (*place, "status"), f"there is no arm {arm[:80]!r}; there are: {', '.join(one.arms)}"
        yield from _ratios(one, place)
    yield from _overlaps(plan)
    yield from _seeds(plan)


def _ratios(one: Experiment, place: tuple[str, str]) -> Iterator[Fault]:
    if one.metrics is None:
        return
    named: list[tuple[tuple[str, ...], _Metric]] = [(("primary",), one.metrics.primary)]
    named += [(("guardrails", name), metric) for name, metric in one.metrics.guardrails.items()]
    for inner, metric in named:
        if (metric.kind == "ratio") != (metric.denominator is not None):
            yield (*place, "metrics", *inner), "a ratio needs a denominator, and only a ratio has one"


def _overlaps(plan: Plan) -> Iterator[Fault]:
    before: list[tuple[str, Experiment]] = []
    for name, one in plan.experiments.items():
        for earlier, other in before:
            if one.layer == other.layer and max(one.range[0], other.range[0]) < min(one.range[1], other.range[1]):
                yield (
                    ("experiments", name, "range"),
                    f"overlaps with that of {earlier!r} in layer {one.layer!r}; give each its own part, or its own "
                    "layer",
                )
        before.append((name, one))


def _seeds(plan: Plan) -> Iterator[Fault]:
    """Two experiments with one seed would give the same units the same arms."""
    owners: dict[str, str] = {}
    places = [(("layers", name), layer.seed) for name, layer in plan.layers.items()]
    places += [(("experiments", name), one.seed) for name, one in plan.experiments.items()]
    for place, seed in places:
        if (owner := owners.setdefault(seed, place[1])) != place[1]:
            yield (*place, "seed"), f"{seed!r} is the seed of {owner!r}; give each its own"
