"""`trimtab ab`: what an experiment on steering says, and how many units one needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import DataError, SettingError
from .console import Plain, display, figure, say
from .options import a_file, a_folder, there
from .place import Run, command_line, noted, slug

if TYPE_CHECKING:
    from rich.table import Table

    from trimtab.vectors.experiments import Closing, Exposure, Plan

    from ..findings import ExperimentFound, MetricFound

__all__ = ["ab"]

_WIDTH = 140
"""Columns of tables that go to a file."""
_RESULT = "result"
ALARM = 3
"""The exit code of a check that found an alarm, as of a watch."""


class _ResultUnlessNamed(typer.core.TyperGroup):
    """A group whose first command may be left out, so that `trimtab ab LOG OUTCOMES` is enough."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] != "--help":
            args = [_RESULT, *args]
        return super().parse_args(ctx, args)


ab = typer.Typer(
    cls=_ResultUnlessNamed,
    no_args_is_help=True,
    help="Tell what an experiment on steering says: trimtab ab EXPOSURES OUTCOMES.",
)

Exposures = Annotated[
    Path,
    typer.Argument(
        metavar="EXPOSURES",
        help="The exposure log: the folder of --steering-exposures, or a file of it.",
        callback=there("give the folder of --steering-exposures, or a file of it"),
    ),
]
OutcomesFile = Annotated[
    Path,
    typer.Argument(
        metavar="OUTCOMES",
        help="JSON lines or CSV: exposure_id or unit, then metrics, one per column.",
        callback=a_file("give a file of JSON lines or CSV"),
    ),
]
PlanFile = Annotated[
    Path | None,
    typer.Option(help="The plan that the server has; says arms, weights, metrics.", callback=a_file("give the plan")),
]
ExperimentName = Annotated[str | None, typer.Option(help="Which experiment, where the log holds several.")]
PrimaryMetric = Annotated[
    str | None, typer.Option(help="The metric that decides: of the outcomes, or of the log. Default: the plan's.")
]
UnitKeyFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="File with the server's TRIMTAB_UNIT_KEY, where OUTCOMES names units by themselves.",
        callback=a_file("give a file that holds the key"),
    ),
]


@ab.command(_RESULT)
def result(
    exposures: Exposures,
    outcomes: OutcomesFile,
    plan: PlanFile = None,
    experiment: ExperimentName = None,
    primary: PrimaryMetric = None,
    better: Annotated[
        Literal["higher", "lower"] | None, typer.Option(help="Which way the metric should go. Default: the plan's.")
    ] = None,
    decide: Annotated[
        Literal["sequence", "planned"],
        typer.Option(help="sequence: at any look. planned: once, by the first planned units alone."),
    ] = "sequence",
    planned_units: Annotated[
        int | None, typer.Option(min=100, help="Units of all arms that are waited for. Default: the plan's.")
    ] = None,
    registry: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of profiles, from which relative doses are told.",
            callback=a_folder("give the folder of --steering-profiles"),
        ),
    ] = None,
    unit_key: UnitKeyFile = None,
    run: Run = None,
    page: Annotated[Path | None, typer.Option(help="The page; one HTML file that shows it all.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the finding as JSON, in place of tables.")] = False,
) -> None:
    """Tell what an experiment says so far: effects, sample ratio mismatch, guardrails, a verdict."""
    from ..experiments import analysed, designed, read_outcomes
    from ..findings import write_finding

    shown, closed = _log(exposures)
    design = designed(
        shown,
        _plan(plan),
        experiment=experiment,
        metric=primary,
        better=better,
        planned_units=planned_units,
        by=decide,
    )
    found = analysed(shown, closed, read_outcomes(outcomes, _pseudonym(unit_key)), design, _doses(registry))
    if run is not None:
        say(f"wrote {write_finding(run, slug(found.experiment), found)}")
        noted(run)
    if page is not None:
        _write_page(page, found)
        say(f"wrote {page}")
    if json:
        typer.echo(found.model_dump_json(indent=1))
        return
    _show(found)


@ab.command("check")
def check(
    exposures: Exposures,
    plan: PlanFile = None,
    experiment: ExperimentName = None,
    textfile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write metrics for node-exporter's textfile collector, whose folder takes files that end in .prom.",
        ),
    ] = None,
) -> None:
    """Tell from the log alone whether units follow the weights. Exits with 3 where they do not."""
    from .. import experiments
    from ..files import write_whole

    found = experiments.checked(_log(exposures)[0], _plan(plan), experiment)
    if textfile is not None:
        write_whole(textfile, experiments.textfile(found).encode())
        say(f"wrote {textfile}")
    for one in found:
        units = ", ".join(f"{name} {count:,}" for name, count in one.units.items())
        told = "do not follow the weights (SRM); trimtab ab says where" if one.alarm else "follow the weights"
        typer.echo(f"{one.experiment}, seed {one.seed}: units ({units}) {told}, p = {one.p:.2g}")
    if any(one.alarm for one in found):
        raise typer.Exit(ALARM)


@ab.command("power")
def power(
    exposures: Exposures,
    outcomes: OutcomesFile,
    plan: PlanFile = None,
    experiment: ExperimentName = None,
    primary: PrimaryMetric = None,
    effect: Annotated[
        float | None, typer.Option(help="The smallest difference that matters, in the metric's unit; tells the units.")
    ] = None,
    units: Annotated[
        int | None, typer.Option(min=1, help="Units of all arms together; tells the effect that they show.")
    ] = None,
    arms: Annotated[int, typer.Option(min=2, help="Arms, the control among them.")] = 2,
    chance: Annotated[
        float, typer.Option("--power", min=0.5, max=0.999, help="Share of experiments that see the effect.")
    ] = 0.8,
    unit_key: UnitKeyFile = None,
) -> None:
    """Tell how many units an experiment needs, from the control's units of an earlier one."""
    from ..experiments import designed, earlier, read_outcomes, smallest_effect, units_needed

    if (effect is None) == (units is None):
        raise SettingError("--effect or --units: give one of them, and the other is told")
    shown, closed = _log(exposures)
    design = designed(shown, _plan(plan), experiment=experiment, metric=primary)
    column = earlier(shown, closed, read_outcomes(outcomes, _pseudonym(unit_key)), design)
    if effect is not None:
        found = units_needed(column, effect, arms, chance)
    else:
        assert units is not None
        found = smallest_effect(column, units, arms, chance)
    relative = "" if found.relative is None else f" ({found.relative:+.1%} of the control's value)"
    typer.echo(
        f"{found.units:,} units in {arms} arms show a difference of {found.effect:.4g}{relative} in "
        f"{design.primary.name} with a chance of {found.power:.0%}, looked at once. Measured on {len(column):,} units."
    )


def _write_page(page: Path, found: ExperimentFound) -> None:
    from ..files import write_whole
    from ..findings import AboutFound
    from ..report import Pictures, render

    about = AboutFound(
        title=found.title,
        facts={"experiment": found.experiment, "plan": found.plan[:12], "command": command_line(sys.argv[1:])},
    )
    page.parent.mkdir(parents=True, exist_ok=True)
    findings = {"about": about, f"experiment-{slug(found.experiment)}": found}
    write_whole(page, render(found.title, findings, Pictures(page.parent)).encode())


def _log(path: Path) -> tuple[list[Exposure], list[Closing]]:
    from trimtab.vectors.experiments import Closing, Exposure, read_lines

    lines = list(read_lines(path))
    return [one for one in lines if isinstance(one, Exposure)], [one for one in lines if isinstance(one, Closing)]


def _plan(path: Path | None) -> Plan | None:
    from trimtab.vectors.experiments import read_plan

    return None if path is None else read_plan(path.read_bytes())


def _pseudonym(path: Path | None) -> Any:
    from trimtab.vectors.experiments import UnitKey

    try:
        return None if path is None else UnitKey(path.read_text(encoding="utf-8").strip()).pseudonym
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is no text; give a file that holds the key") from error


def _doses(registry: Path | None) -> Any:
    from trimtab.vectors import load_profile
    from trimtab.vectors.dose import largest_dose

    def dose_of(profile: str, alpha: float) -> float | None:
        if registry is None or not (registry / profile).is_dir():
            return None
        return largest_dose(load_profile(registry / profile), alpha)

    return dose_of


def _show(found: ExperimentFound) -> None:
    from rich.box import SIMPLE_HEAD

    shape: dict[str, Any] = {"box": SIMPLE_HEAD, "title_justify": "left", "caption_justify": "left"}
    arms = Plain(title=f"{found.title}: {found.units:,} units", **shape)
    for name in ("arm", "steering", "weight", "units", "with a value", "requests", "aborted", "failed", "value"):
        arms.add_column(name, justify="left" if name in ("arm", "steering") else "right")
    for one in found.arms:
        served = one.served
        counts = (one.units, one.measured, served.requests, served.aborted, served.failed)
        value = "–" if one.value is None else figure(one.value)
        arms.add_row(one.name, one.steering, f"{one.weight:g}", *(f"{count:,}" for count in counts), value)
    display(
        arms,
        *(_metrics(f"{one.name} beside {found.arms[0].name}", one.metrics, shape) for one in found.arms[1:]),
        width=_WIDTH,
    )
    typer.echo(f"Sample ratio: p = {found.mismatch:.2g} of units, {found.missing:.2g} of units with a value.")
    if found.trend is not None:
        slope = found.trend
        typer.echo(f"Trend per 1 of alpha: {slope.slope:.4g} ({slope.low:.4g} to {slope.high:.4g}), p = {slope.p:.2g}.")
    for name, count in found.counted.items():
        typer.echo(f"{name}: {count:,}")
    for sentence in found.hints:
        typer.echo(sentence)
    first, *others = found.why
    typer.echo(f"Verdict: {found.verdict}. {first}")
    for sentence in (*others, found.note):
        typer.echo(sentence)


def _metrics(title: str, metrics: tuple[MetricFound, ...], shape: dict[str, Any]) -> Table:
    table = Plain(title=title, **shape)
    for name in ("metric", "control", "arm", "difference", "at every look", "at the planned size", "margin", "state"):
        table.add_column(name, justify="left" if name in ("metric", "state") else "right")
    for one in metrics:
        if one.difference is None or one.control is None or one.value is None:
            table.add_row(one.name, "–", "–", "–", "–", "–", _margin(one), f"{one.state}: {one.note}")
            continue
        ends = ["–" if pair is None else f"{pair[0]:.4g} to {pair[1]:.4g}" for pair in (one.sequence, one.fixed)]
        values = (f"{one.control:.4g}", f"{one.value:.4g}", f"{one.difference:+.4g}")
        table.add_row(one.name, *values, *ends, _margin(one), one.state)
    return table


def _margin(one: MetricFound) -> str:
    return "–" if one.margin is None else f"{one.margin:g}"
