"""What a run folder holds, room by room, as tables for a terminal (see `trimtab.offline.run`)."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError
from rich.console import Group

from trimtab.vectors import Profile
from trimtab.vectors.dose import largest_dose, said
from trimtab.vectors.states import StatesManifest

from ..errors import DataError
from ..evaluation.answers import REQUEST, RunRequest
from ..evaluation.tables import steering_in_words
from ..report.gathered import gather
from ..report.header import facts_of
from ..run import names
from ..states.store import verify_states
from .console import Plain

__all__ = ["described_run", "verified_run"]

Row = tuple[str, ...]


def described_run(run: Path) -> Group:
    """Facts about the whole, then a table for each room that holds something, then the commands that filled them.

    Raises:
        DataError: as `gather`.
    """
    found = gather(run)
    facts = Plain(show_header=False, box=None)
    for name, value in facts_of(found).items():
        facts.add_row(name, value)
    concepts = [(name, one.method, str(one.layer), f"{len(one.labels):,}") for name, one in found.dictionaries.items()]
    profiles = [_profile(folder, one) for folder, one in found.profiles.items()]
    evaluations = [_evaluation(run, name, name in found.unfinished) for name in names(run, "evaluations")]
    findings = [(f"{name}.json", one.kind, one.title) for name, one in found.findings.items() if "/" not in name]
    rooms: dict[str, tuple[Row, Iterable[Row]]] = {
        "states": (("name", "rule", "layers", "states", "samples"), [_states(*one) for one in found.states.items()]),
        "dictionaries": (("name", "method", "layer", "concepts"), concepts),
        "profiles": (("folder", "kind", "layers", "alpha", "dose"), profiles),
        "evaluations": (("name", "data", "samples", "model", "steering"), evaluations),
        "findings": (("file", "kind", "title"), findings),
        "commands": (("date", "version", "command"), [(o.date, o.trimtab, o.command) for o in found.commands]),
    }
    tables = [_table(title, *room) for title, room in rooms.items()]
    return Group(facts, *(table for table in tables if table.row_count))


def verified_run(run: Path) -> str:
    """Check every byte of a run's states, dictionaries and profiles; what it holds, in a few words.

    Raises:
        DataError, ProfileError: names what is damaged.
    """
    found = gather(run)
    for name in found.states:
        verify_states(run / "states" / name)
    counted = {
        "folders of states": len(found.states),
        "dictionaries": len(found.dictionaries),
        "profiles": len(found.profiles),
        "evaluations": len(names(run, "evaluations")),
        "findings": sum("/" not in name for name in found.findings),
    }
    return "run folder: " + ", ".join(f"{count} {what}" for what, count in counted.items() if count)


def _table(title: str, headers: Row, rows: Iterable[Row]) -> Plain:
    table = Plain(*headers, title=title)
    for row in rows:
        table.add_row(*row)
    return table


def _states(name: str, manifest: StatesManifest) -> Row:
    request = manifest.request
    done = f"{manifest.done:,} of {request.samples:,}" + ("" if manifest.complete else ", unfinished")
    return name, request.rule, ", ".join(map(str, request.layers)), f"{manifest.rows:,}", done


def _profile(folder: str, profile: Profile) -> Row:
    manifest = profile.manifest
    alpha = f"{manifest.alpha.default:g} ({manifest.alpha.min:g} to {manifest.alpha.max:g})"
    return folder, manifest.kind, ", ".join(map(str, profile.layers)), alpha, said(largest_dose(profile))


def _evaluation(run: Path, name: str, unfinished: bool) -> Row:
    file = run / "evaluations" / name / REQUEST
    try:
        asked = RunRequest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        return name, "unfinished", "", "", ""
    except ValidationError as error:
        raise DataError(f"{file}: is not what `trimtab evaluate` writes; evaluate again into another folder") from error
    samples = f"{asked.samples:,}" + (", unfinished" if unfinished else "")
    return name, asked.format, samples, asked.model, steering_in_words(asked.steering, None)
