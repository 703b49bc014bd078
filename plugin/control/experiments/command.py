"""`trimtab-serve experiments`: what a plan means, without a server.

Exit codes: 0 where the plan is whole and fits, 1 where it does not, 2 for a command line that cannot be read.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from trimtab.vectors import Registry
from trimtab.vectors.errors import TrimtabError
from trimtab.vectors.experiments import Experiment, Plan, changes

from ..policy import Policy, read_policy
from .assign import ranges
from .fits import faults, misnamed
from .held import read_file

__all__ = ["main"]

PROGRAM = "trimtab-serve experiments"


def main(arguments: Sequence[str]) -> int:
    """Check a plan; returns the exit code."""
    options = _parser().parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        registry = None if options.profiles is None else Registry.open(options.profiles)
        policy = None if options.policy is None else read_policy(options.policy, registry)
        _, plan = read_file(options.file)
        before = None if options.after is None else read_file(options.after)[1]
    except TrimtabError as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 1
    said = _wrong(plan, registry, policy, before)
    for sentence in said:
        console.print(f"[red]{escape(str(options.file))}[/]: {escape(sentence)}")
    if said:
        console.print("nothing of it is used")
        return 1
    _print(options.file, plan, console)
    if registry is None:
        console.print("[dim]profiles and strengths were not checked; give --profiles DIR[/]")
    return 0


def _wrong(plan: Plan, registry: Registry | None, policy: Policy | None, before: Plan | None) -> list[str]:
    return [
        *(changes(before, plan) if before is not None else ()),
        *(faults(plan, registry, policy) if registry is not None else ()),
        *(misnamed(policy, plan) if policy is not None else ()),
    ]


def _print(file: Path, plan: Plan, console: Console) -> None:
    console.print(f"[green]{escape(str(file))} is whole[/], digest {plan.digest}")
    for name, layer in plan.layers.items():
        console.print(f"layer {name}: {_percent(layer.holdout)} of the units are held out of it")
    for name, one in plan.experiments.items():
        _print_one(name, one, plan, console)
    if not plan.experiments:
        console.print("no experiments")


def _print_one(name: str, one: Experiment, plan: Plan, console: Console) -> None:
    share = (1 - plan.layers[one.layer].holdout) * (one.range[1] - one.range[0]) * one.coverage
    console.print(f"\n{name}: {one.status}; {_percent(share)} of all units, in layer {one.layer}")
    console.print(f"unit: {', then '.join(one.unit)}; without one: {_without(one)}")
    table = Table("arm", "of those", "steering", box=None, padding=(0, 2, 0, 0))
    for (arm, of_arm), (start, end) in zip(
        one.arms.items(), ranges([arm.weight for arm in one.arms.values()]), strict=True
    ):
        said = "the server's default" if of_arm.steering is None else json.dumps(of_arm.steering)
        table.add_row(arm + (" (control)" if arm == one.control else ""), _percent(end - start), escape(said))
    console.print(table)


def _without(one: Experiment) -> str:
    if one.running:
        return "400 where a request names the experiment, else the server's default"
    return "as all others"


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description="Check a plan of experiments.", allow_abbrev=False)
    words = parser.add_subparsers(dest="word", required=True, metavar="check")
    check = words.add_parser("check", help="read FILE as a server does, and say what it means", allow_abbrev=False)
    check.add_argument("file", type=Path, metavar="FILE", help="the plan")
    check.add_argument("--profiles", type=Path, metavar="DIR", help="the folder of profiles that is served")
    check.add_argument("--policy", type=Path, metavar="FILE", help="the access policy beside it")
    check.add_argument("--after", type=Path, metavar="OLD", help="the plan that is running now: may it become FILE?")
    return parser
