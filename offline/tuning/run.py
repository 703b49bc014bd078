"""From configurations to operating points: all candidates of a model behind one server, chosen, reported, written.

RUN/states, RUN/profiles    what was made; the chosen profiles, each under its steering's name
RUN/tuning/candidates-…     the profiles that were tried, of one model
RUN/tuning/asked            every answer, kept under all that decides it: a second run asks for what is missing
RUN/tuning/server-….log     what the server said
"""

from __future__ import annotations

import functools
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from trimtab.vectors import ModelIdentity, Profile, Registry, load_profile, save_profile
from trimtab.vectors.errors import ProfileError

from ..errors import SettingError
from ..findings import Finding, write_finding
from ..progress import progress
from .ask import Asking, Exam, Serving, made_of
from .candidates import Made, make
from .config import Tuning
from .controls import bias_of
from .found import findings, with_evaluation
from .goals import Judge, holds, judge_of
from .material import Material
from .server import Server, with_dtype
from .trial import Outcome, requests, tried

if TYPE_CHECKING:
    from ..models.reader import Reader
    from .running import Running

__all__ = ["Tuned", "doubts", "tune"]

FEW = 20
"""With fewer answers that are meant to change, or to stay, the best settings of dev are equal by chance."""


@dataclass(frozen=True)
class Tuned:
    """What came of a configuration.

    outcomes: by steering. findings: with their names, the table of test first. profiles: the folders of those chosen.
    """

    tuning: Tuning
    outcomes: Mapping[str, Outcome]
    findings: Sequence[tuple[str, Finding]]
    profiles: Mapping[str, Path]


@dataclass(frozen=True)
class _Plan:
    """A configuration, ready to be served: everything that can be refused has been."""

    tuning: Tuning
    material: Material
    made: Mapping[str, Sequence[Made]]
    judges: Mapping[str, Judge]
    biases: Mapping[str, Mapping[str, float]]

    @property
    def requests(self) -> int:
        dev, test = len(self.material.dev), len(self.material.test)
        nulls, settles = self.tuning.nulls, {name: one.settled is not None for name, one in self.judges.items()}
        return sum(
            requests(made, dev, test, nulls, name in self.biases, settles[name]) for name, made in self.made.items()
        )

    @property
    def profiles(self) -> Iterable[Profile]:
        for made in self.made.values():
            for one in made:
                yield from (one.profile, *one.nulls(self.tuning.nulls))


def tune(
    tunings: Sequence[Tuning],
    run: Path,
    *,
    running: Running | None = None,
    command: str = "",
    say: Callable[[str], None] = print,
) -> list[Tuned]:
    """Try every candidate of every configuration; write findings and the chosen profiles into the run folder.

    Configurations of one model share a server. running: ask this server, and start none; for configurations of one
    model. say: told of what is left out, and why.

    Raises:
        SettingError, DataError, ModelError: before a server starts, where something cannot be had.
        EndpointError: the server did not come up or went away; the answers that came are kept.
    """
    _check_names(tunings, run)
    if running is not None and len({one.model.resolve() for one in tunings}) > 1:
        raise SettingError("a running server serves one model, and the configurations name several; tune one at a time")
    plans = _plans(tunings, run, say)
    done: list[Tuned] = []
    with ExitStack() as stack:
        bar = _Bar(sum(plan.requests for plan in plans), stack)
        for group in _by_server(plans).values() if running is None else (plans,):
            done += _measured(group, run, running, command, say, bar)
    return done


class _Bar:
    """Counts answers. It begins with the first one, so that a server's start does not count for the time left."""

    def __init__(self, total: int, stack: ExitStack) -> None:
        self._total, self._stack = total, stack
        self._advance: Callable[[int], None] | None = None

    def __call__(self, count: int) -> None:
        if self._advance is None:
            self._advance = self._stack.enter_context(progress("tune", self._total))
        self._advance(count)


def _plans(tunings: Sequence[Tuning], run: Path, say: Callable[[str], None]) -> list[_Plan]:
    reader = functools.cache(_reader)
    materials = [Material(one, run, _layers(one), reader) for one in tunings]
    shared: dict[str, set[int]] = {}
    for one in materials:
        shared.setdefault(one.name_of(one.tuning.model), set()).update(one.layers)
    plans = []
    for one in materials:
        material = replace(one, layers=tuple(sorted(shared[one.name_of(one.tuning.model)])))
        steerings = one.tuning.steerings
        judges = {name: judge_of(steering, material.known) for name, steering in steerings.items()}
        _check_goals(material)
        made = {name: make(name, steering, material, say) for name, steering in steerings.items()}
        biases = {}
        for name, steering in steerings.items():
            try:
                biases[name] = bias_of(steering, one.tuning.model)
            except SettingError as error:
                say(f"{name}: no control by logit_bias: {error}")
        plans.append(_Plan(one.tuning, material, made, judges, biases))
    reader.cache_clear()  # the server needs the memory of the models that were read
    return plans


def _measured(
    plans: Sequence[_Plan],
    run: Path,
    running: Running | None,
    command: str,
    say: Callable[[str], None],
    advance: Callable[[int], None],
) -> list[Tuned]:
    """Configurations of one server, one after the other."""
    first = plans[0].tuning
    known = made_of(first.model, with_dtype(first.serve, first.model), first.environment)
    done = []
    with ExitStack() as stack:
        server: Serving
        if running is None:
            server = stack.enter_context(_own(plans, run))
        else:
            server, known = stack.enter_context(running), {**known, **running.made_of()}
        for plan in plans:
            asking = Asking(
                server, known, run / "tuning" / "asked", plan.material.prompt, plan.tuning.max_tokens, advance
            )
            dev, test = Exam(asking, "dev", plan.material.dev), Exam(asking, "test", plan.material.test)
            outcomes = {
                name: tried(
                    made,
                    plan.judges[name],
                    dev,
                    test,
                    plan.tuning.most_collateral,
                    plan.biases.get(name),
                    plan.tuning.nulls,
                )
                for name, made in plan.made.items()
            }
            done.append(_written(plan, outcomes, run, command, say))
    return done


def _own(plans: Sequence[_Plan], run: Path) -> Server:
    """A server of all candidates, which starts when it is asked."""
    first = plans[0].tuning
    label = first.model.resolve().name
    folder = run / "tuning"
    registry = _registry(folder / f"candidates-{label}", (one for plan in plans for one in plan.profiles))
    arguments = with_dtype(first.serve, first.model)
    return Server(first.model, registry, folder / f"server-{label}.log", arguments, first.environment)


def _written(
    plan: _Plan, outcomes: Mapping[str, Outcome], run: Path, command: str, say: Callable[[str], None]
) -> Tuned:
    most = plan.tuning.most_collateral
    found = findings(
        plan.tuning.name,
        outcomes,
        dict.fromkeys(outcomes, plan.material.test),
        most_collateral=most,
        run=run,
        command=command,
    )
    for name, finding in found:
        write_finding(run, name, finding)
    registry = _own_registry(run, plan.tuning.model)
    profiles = {}
    for name, outcome in outcomes.items():
        for doubt in doubts(outcome, most):
            say(f"{name}: {doubt}")
        if outcome.chosen is None:
            continue
        profiles[name] = save_profile(with_evaluation(outcome, name, most), registry / name, overwrite=True)
    return Tuned(plan.tuning, outcomes, found, profiles)


def doubts(outcome: Outcome, most_collateral: float) -> list[str]:
    """Why nothing was chosen, or on too few answers."""
    if all(one.verdict.collateral is None for one in outcome.tried):
        return [
            "every answer of dev is meant to change, so collateral cannot be measured, nothing is chosen and no "
            "profile is written; add dev samples whose answers should stay"
        ]
    if outcome.chosen is None:
        return [f"nothing gains anything at {100 * most_collateral:g} % collateral or less, so no profile is written"]
    meant, others = outcome.chosen.verdict.gained, outcome.chosen.verdict.collateral
    counted = {"meant to change": meant.n, "such that a change counts as collateral": others.n if others else 0}
    return [
        f"only {n} answers of dev are {what}, too few to choose by; give more dev samples"
        for what, n in counted.items()
        if n < FEW
    ]


def _layers(tuning: Tuning) -> tuple[int, ...]:
    """Every layer that a configuration asks for.

    Raises:
        SettingError: one that the model does not have. FormatError: no model.
    """
    asked = {layer for one in tuning.steerings.values() for c in tuning.candidates_of(one) for layer in c.layers}
    top = ModelIdentity.of(tuning.model).num_layers - 1
    if max(asked) > top:
        raise SettingError(f"{tuning.name}: layer {max(asked)} is asked for; {tuning.model} has the layers 0 to {top}")
    return tuple(sorted(asked))


def _check_goals(material: Material) -> None:
    for name, steering in material.tuning.steerings.items():
        at = steering.goal.at
        for part, samples in (("dev", material.dev), ("test", material.test)):
            if at and not any(holds(sample, at) for sample in samples):
                raise SettingError(f"{name}: no sample of {part} has {at}; change `at` or the data")


def _check_names(tunings: Sequence[Tuning], run: Path) -> None:
    """Every steering has a name of its own, and replaces no profile that a tuning did not write."""
    names = [name for one in tunings for name in one.steerings]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingError(f"two steerings are called {twice[0]!r}; each becomes a profile, so give each its own name")
    for one in tunings:
        for name in one.steerings:
            folder = _own_registry(run, one.model) / name
            if folder.exists() and "tuning" not in load_profile(folder).manifest.provenance.evaluation:
                raise SettingError(f"{folder}: is a profile that no tuning wrote; call the steering otherwise")


def _own_registry(run: Path, model: Path) -> Path:
    """RUN/profiles, or where that holds another model's profiles, RUN/profiles-<model>: one server serves one model."""
    folder = run / "profiles"
    if folder.is_dir() and any(folder.iterdir()):
        try:
            Registry.open(folder, ModelIdentity.of(model))
        except ProfileError:
            return run / f"profiles-{model.resolve().name}"
    return folder


def _registry(folder: Path, profiles: Iterable[Profile]) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for profile in profiles:
        save_profile(profile, folder / profile.name)
    return folder


def _by_server(plans: Sequence[_Plan]) -> dict[tuple[object, ...], list[_Plan]]:
    found: dict[tuple[object, ...], list[_Plan]] = {}
    for plan in plans:
        one = plan.tuning
        key = (one.model.resolve(), one.serve, tuple(sorted(one.environment.items())))
        found.setdefault(key, []).append(plan)
    return found


def _reader(model: Path) -> Reader:
    from ..models import Reader

    return Reader(model)
