"""`trimtab-serve policy`: what an access policy says, and what it would do with a request, without a server.

Exit codes: 0 where the policy is whole and the request would be served, 1 where it is not or would be refused, 2 for a
command line that cannot be read.
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
from trimtab.vectors.asked import parse, read_text
from trimtab.vectors.errors import RequestError, TrimtabError

from .decide import Asks
from .errors import PolicyError
from .explain import Explanation, explain, warnings_of
from .limits import Part
from .load import read_policy
from .model import ANONYMOUS, LOCAL, Added, Grant, Policy, Rule

__all__ = ["main"]

PROGRAM = "trimtab-serve policy"
_OF_A_BODY = frozenset({"steering", "messages", "prompt", "input", "model"})


def main(arguments: Sequence[str]) -> int:
    """Check a policy or explain a request; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    console = Console(highlight=False, soft_wrap=True)
    try:
        registry = None if options.profiles is None else Registry.open(options.profiles)
        policy = read_policy(options.file, registry)
    except PolicyError as error:
        _print_faults(options.file, error, console)
        return 1
    except TrimtabError as error:
        console.print(f"[red]{escape(str(error))}[/]")
        return 1
    if options.word == "check":
        _print_policy(options.file, policy, registry, console)
        return 0
    subject = None if options.subject == ANONYMOUS else options.subject
    if subject not in (None, LOCAL, *policy.subjects) and not policy.has_gateway:
        parser.error(f"{subject!r} is no subject of this policy: {', '.join((ANONYMOUS, LOCAL, *policy.subjects))}")
    try:
        asks = _asks(options.request)
    except RequestError as error:
        parser.error(f"--request: {error}")
    found = explain(policy, subject, asks, registry)
    _print_explanation(policy, options.subject, found, console)
    return 1 if isinstance(found.decision, RequestError) or found.decision.outcome == "would_refuse" else 0


def _asks(text: str | None) -> Asks:
    if text is None:
        return None
    try:
        body = json.loads(text)
    except (ValueError, RecursionError):
        body = None
    is_body = isinstance(body, dict) and not _OF_A_BODY.isdisjoint(body)
    value = body.get("steering") if is_body else read_text(text)
    return None if value is None else parse(value)


def _print_faults(file: Path, error: PolicyError, console: Console) -> None:
    for reason, line in error.faults:
        place = str(file) if line is None else f"{file}:{line}"
        console.print(f"[red]{escape(place)}[/]: {escape(reason)}")
    console.print("nothing of it is used")


def _print_policy(file: Path, policy: Policy, registry: Registry | None, console: Console) -> None:
    console.print(f"[green]{escape(str(file))} is whole[/], digest {policy.digest}")
    if policy.mode == "report":
        console.print("[yellow]mode: report[/]: decisions are made, counted and logged, and change nothing")
    table = Table("rule", "subjects", "may use", "may ask for none", box=None, padding=(0, 2, 0, 0))
    for index, rule in enumerate(policy.rules):
        may_opt_out = "yes" if rule.may_opt_out else "no"
        table.add_row(policy.label(index), escape(", ".join(rule.subjects)), escape(_allowed(rule)), may_opt_out)
    console.print(table if policy.rules else "no rules: nobody may ask for anything")
    console.print(f"default: {_strength(policy.default) if policy.default else 'none'}")
    console.print(f"enforced: {', '.join(map(_strength, policy.enforced)) or 'none'}")
    limits = policy.limits.model_copy(update={"profiles": policy.most_profiles}).model_dump(exclude_none=True)
    console.print(f"limits: {', '.join(f'{name} {value:g}' for name, value in limits.items())}")
    for warning in warnings_of(policy, registry):
        console.print(f"[yellow]note:[/] {escape(warning)}")
    if registry is None:
        console.print("[dim]names and strengths were not checked; give --profiles DIR[/]")


def _allowed(rule: Rule) -> str:
    return ", ".join(f"{pattern} {_range(grant)}" for pattern, grant in rule.allow.items()) or "nothing"


def _range(grant: Grant) -> str:
    return "(its own range)" if grant.alpha is None else f"({grant.alpha[0]:g} to {grant.alpha[1]:g})"


def _strength(one: Added) -> str:
    return f"{one.profile} at {'its default strength' if one.alpha is None else f'{one.alpha:g}'}"


def _print_explanation(policy: Policy, subject: str, found: Explanation, console: Console) -> None:
    console.print(f"subject: {escape(subject)}")
    console.print(f"rule: {found.rule}")
    if isinstance(found.decision, RequestError):
        console.print(f"[red]refused with {found.decision.status}[/]: {escape(str(found.decision))}")
    elif found.decision.outcome == "would_refuse":
        console.print(f"[yellow]would be refused[/] (mode: report): {escape(found.decision.reason)}")
    else:
        console.print(f"[green]{found.decision.outcome}[/]" + (" (mode: report)" if policy.mode == "report" else ""))
        own = found.decision.profiles[: len(found.decision.profiles) - found.decision.added]
        console.print(f"served as asked: {_parts(own)}")
        console.print(f"added by the server: {_parts(found.enforced)}")
    for one in found.unknown:
        console.print(f"[dim]not told here: {escape(one)}[/]")


def _parts(parts: Sequence[Part]) -> str:
    return ", ".join(f"{profile.name} at {alpha:g}" for profile, alpha in parts) or "nothing"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM, description="Check an access policy, or say what it does with a request.", allow_abbrev=False
    )
    words = parser.add_subparsers(dest="word", required=True, metavar="check|explain")
    check = words.add_parser("check", help="read FILE as a server does, and say what it means", allow_abbrev=False)
    explained = words.add_parser("explain", help="say what a request gets, and by which rule", allow_abbrev=False)
    for one in (check, explained):
        one.add_argument("file", type=Path, metavar="FILE", help="the policy")
        one.add_argument("--profiles", type=Path, metavar="DIR", help="the folder of profiles that is served")
    explained.add_argument("--subject", default=ANONYMOUS, metavar="NAME", help=f"who asks; default: {ANONYMOUS}")
    explained.add_argument(
        "--request",
        metavar="TEXT",
        help="the value of the field `steering`, or a whole body in JSON; left out: the request says nothing",
    )
    return parser
