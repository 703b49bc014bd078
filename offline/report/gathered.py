"""What a run folder holds, read for its page where it lies (see `trimtab.offline.run`): nothing is copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from trimtab.vectors import ConceptDictionary, Profile, load_profile
from trimtab.vectors.states import StatesManifest

from ..errors import DataError
from ..findings import AnswersFound, Finding, holds_findings, read_findings
from ..run import Command, names, read_commands
from ..states.store import open_manifest

__all__ = ["Gathered", "gather"]


@dataclass(frozen=True)
class Gathered:
    """findings: by their file without the ending, relative to the run. The others by name. pictures: as in findings."""

    findings: Mapping[str, Finding]
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    dictionaries: Mapping[str, ConceptDictionary] = field(default_factory=dict)
    states: Mapping[str, StatesManifest] = field(default_factory=dict)
    commands: tuple[Command, ...] = ()
    unfinished: tuple[str, ...] = ()


def gather(run: Path) -> Gathered:
    """Read a run folder, or a folder of findings alone.

    Raises:
        DataError: there is nothing of ours in it, or a finding is broken. What reading profiles, dictionaries and
            states raises; each names its folder.
    """
    findings = dict(read_findings(run)) if holds_findings(run) else {}
    unfinished = []
    for name in names(run, "evaluations"):
        folder = run / "evaluations" / name
        if holds_findings(folder):
            findings |= {f"evaluations/{name}/{key}": _moved(one, name) for key, one in read_findings(folder).items()}
        else:
            unfinished.append(name)
    found = Gathered(
        findings,
        profiles={name: load_profile(folder) for name, folder in _profiles(run).items()},
        dictionaries={name: ConceptDictionary.load(run / "dictionaries" / name) for name in names(run, "dictionaries")},
        states={name: open_manifest(run / "states" / name) for name in names(run, "states")},
        commands=read_commands(run),
        unfinished=tuple(unfinished),
    )
    if not (findings or found.profiles or found.dictionaries or found.states):
        raise DataError(
            f"{run}: holds no finding and no profiles/, dictionaries/, states/ or evaluations/; give the --run of the "
            "commands, the --findings of ground or choose-k, or the --out of shift or evaluate"
        )
    return found


def _profiles(run: Path) -> dict[str, Path]:
    """By name. Profiles of a further model lie in a registry of their own, RUN/profiles-MODEL."""
    return {
        str(folder.relative_to(run)): folder
        for registry in sorted(run.glob("profiles*"))
        for folder in sorted(registry.glob("*"))
        if (folder / "profile.json").exists()
    }


def _moved(found: Finding, name: str) -> Finding:
    """A finding of an evaluation, its pictures named from the run."""
    if not isinstance(found, AnswersFound):
        return found
    examples = tuple(
        one.model_copy(update={"picture": f"evaluations/{name}/{one.picture}"}) if one.picture else one
        for one in found.examples
    )
    return found.model_copy(update={"examples": examples})
