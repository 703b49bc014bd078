"""`python -m examples.tinyworld.study --out out/study`: builds, serves, measures, writes findings, prints tables."""

from __future__ import annotations

import argparse
import asyncio
import importlib
import warnings
from collections.abc import Sequence
from datetime import date
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.table import Table

from examples.tinyworld.demo.client import Client
from examples.tinyworld.demo.server import ServerError, serving
from examples.tinyworld.export import MODEL
from examples.tinyworld.study.exam import Server, made_of
from examples.tinyworld.study.lab import Lab
from trimtab.offline.findings import AboutFound, Finding, TableFound, write_finding
from trimtab.offline.steering.fine import ConceptWarning
from trimtab.vectors import ModelIdentity, Profile, save_profile

PARTS = ("words", "kinds", "style", "choosing", "stability", "gender", "toward", "safety")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m examples.tinyworld.study", description="Studies steering.")
    parser.add_argument("--out", type=Path, default=Path("out/study"), help="folder for all that is made")
    parser.add_argument("--model", type=Path, default=MODEL, help="folder of the tiny LLaVA")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; repeatable")
    asked = parser.parse_args()
    parts = {name: importlib.import_module(f"examples.tinyworld.study.{name}") for name in asked.part or PARTS}
    safety = parts.pop("safety", None)
    lab = Lab(asked.out, asked.model)
    write_finding(lab.run, "study", _about(asked.model))
    try:
        if parts:
            _measure(lab, parts)
        if safety is not None:
            _measure(safety.lab(lab), {"safety": safety})
    except ServerError as error:
        raise SystemExit(str(error)) from error


def _about(model: Path) -> AboutFound:
    identity = ModelIdentity.of(model)
    facts = {
        "model": f"tinyworld ({identity.architecture}, {identity.num_layers} layers × {identity.hidden_size})",
        "weights": identity.fingerprint or "unknown",
        "command": "make study",
        "date": f"{date.today():%Y-%m-%d}",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("trimtab", "torch", "transformers")),
    }
    return AboutFound(title="Steering studies of tinyworld", facts=facts)


def _measure(lab: Lab, parts: dict[str, ModuleType]) -> None:
    """Serves the profiles of all parts at once, and measures one part after the other."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConceptWarning)  # what K-Means misses is what the tables are about
        made = [profile for part in parts.values() for profile in part.profiles(lab)]
    registry = _saved(lab, made)
    log = lab.out / f"server-{lab.model.resolve().name}.log"
    with serving(lab.model, registry, log) as url, asyncio.Runner() as runner:
        profiles = {profile.name: profile for profile in made}
        server = Server(Client(url, runner), profiles, made_of(lab.model), lab.out / "asked")
        for part in parts.values():
            for name, finding in part.study(lab, server).items():
                print(write_finding(lab.run, name, finding), flush=True)
                _show(finding)


def _saved(lab: Lab, profiles: Sequence[Profile]) -> Path:
    folder = lab.forget_profiles()
    for profile in profiles:
        save_profile(profile, folder / profile.name)
    return folder


def _show(finding: Finding) -> None:
    if not isinstance(finding, TableFound):
        return
    table = Table(*finding.columns, title=finding.title, caption=finding.note)
    for number, row in enumerate(finding.rows):
        cells = ("" if cell is None else f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in row)
        table.add_row(*cells, style="dim" if number in finding.published else None)
    Console(width=200).print(table)


if __name__ == "__main__":
    main()
