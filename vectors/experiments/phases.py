"""Every phase that a server has run, by its seed: what tells that an earlier seed comes again."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from ..decode import parse_manifest
from .changes import changes
from .plan import Experiment, Layer, Name, Plan, Seed

__all__ = ["Phase", "Phases"]


class Phase(BaseModel):
    """What ran under one seed, as it was last in force. experiment: its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    experiment: Name
    layer: Layer
    last: Experiment


class Phases(BaseModel):
    """All phases, whether they still run or not. A draft has assigned no unit, so it is none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format_version: int = 1
    phases: dict[Seed, Phase] = Field(default_factory=dict)

    @classmethod
    def parse(cls, data: bytes, where: str) -> Phases:
        """Raises FormatError for what is none. where: the file's name, for the error."""
        return parse_manifest(cls, data, where)

    def dump(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()

    def after(self, plan: Plan) -> Phases:
        """With those of a plan that comes into force."""
        found = dict(self.phases)
        for name, one in plan.experiments.items():
            if one.status == "draft":
                continue
            for seed, phase in self.phases.items():
                if phase.experiment == name and seed != one.seed:  # a new seed ends the phase before
                    found[seed] = phase.model_copy(update={"last": phase.last.model_copy(update={"status": "stopped"})})
            last = one.model_copy(update={"metrics": None})  # which assigns no unit
            found[one.seed] = Phase(experiment=name, layer=plan.layers[one.layer], last=last)
        return self.model_copy(update={"phases": found})

    def refused(self, plan: Plan, held: Plan | None) -> list[str]:
        """What would give units of an earlier phase other arms under its seed, each in a sentence.

        held: the plan in force, with which `changes` compares what it says of the same experiment and seed.
        """
        said: list[str] = []
        for name, one in plan.experiments.items():
            phase = self.phases.get(one.seed)
            if phase is None or one.status == "draft":
                continue
            if phase.experiment != name:
                said.append(
                    f"{name}: the seed {one.seed!r} was that of {phase.experiment!r}, whose units would get the same "
                    "arms again; give a new seed"
                )
                continue
            before = None if held is None else held.experiments.get(name)
            if before is None or before.status == "draft" or before.seed != one.seed:
                earlier = Plan(version=1, layers={phase.last.layer: phase.layer}, experiments={name: phase.last})
                said += changes(earlier, plan)
        return said
