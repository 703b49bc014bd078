"""Which concept to which: pairs of a dictionary of answers, found by steering a dev set with each (docs/method.md §4).

The dictionary is made without labels' help from all answers of type "other"; which answer a pair brings is found out
by what the served model says.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from examples.tinyworld.ask import Sample
from examples.tinyworld.scene import COLORS
from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import Cell, changed
from examples.tinyworld.study.lab import LAST, STRENGTHS, Lab
from trimtab.offline.concepts import kmeans
from trimtab.offline.findings import Finding, TableFound
from trimtab.offline.states import LayerStates
from trimtab.offline.states.relabel import labelled, labels_of_samples
from trimtab.offline.steering.choose_pair import Judged, Pair, judge, pair_profile, pairs_near, select
from trimtab.offline.steering.null_control import random_control
from trimtab.vectors import Profile

K = 20
TRIED = 16
SHOWN = 3
DEV, TEST = 120, 240
_COMMAND = "python -m examples.tinyworld.study --part choosing"


def profiles(lab: Lab) -> list[Profile]:
    """The pairs nearest to the mean of all color answers, and a null control of each."""
    made = list(_candidates(lab).values())
    return [*made, *(random_control(one, f"{one.name}-null", seed=0) for one in made)]


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """All verdicts of dev, and on test what the best pairs gain beside their null controls."""
    candidates = _candidates(lab)
    dev = Exam(server, "dev", lab.split("dev"), lab.samples("dev", ("other",), DEV))
    test = Exam(server, "test", lab.split("test"), lab.samples("test", ("other",), TEST))

    def answer(profile: Profile, samples: Sequence[Sample]) -> list[str]:
        return Exam(server, "dev", dev.folder, samples).steered(profile.name, 1.0)

    verdicts = select(candidates, dev.samples, dev.plain, answer)
    return {"choosing-dev": _verdicts(verdicts, len(dev.samples)), "choosing-test": _tested(test, verdicts, candidates)}


def _candidates(lab: Lab) -> dict[Pair, Profile]:
    states = lab.states("vqa.jsonl", "last-prompt", LAST)
    others = _of_type_other(lab, states)
    colors = others.values[others.of(set(COLORS))].mean(axis=0)
    dictionary = kmeans(others, K)
    pairs = pairs_near(dictionary, colors, colors, TRIED)
    return {pair: pair_profile(f"pair-{pair.i}-{pair.j}", dictionary, pair, alpha=STRENGTHS) for pair in pairs}


def _of_type_other(lab: Lab, states: LayerStates) -> LayerStates:
    data = states.manifest.request.data
    typed = labelled(states, labels_of_samples(lab.split("train") / "vqa.jsonl", "type", data))
    return states.at(np.flatnonzero(typed.of({"other"})))


def _verdicts(verdicts: Sequence[Judged], asked: int) -> TableFound:
    return TableFound(
        title=f"Pairs of concepts, steered through the server at alpha = 1: {asked} dev questions of type other",
        note=f"The {TRIED} of {K * (K - 1)} pairs whose concepts lie nearest to the mean of the color answers. Score: "
        "smallest gain inside the main group - largest gain outside it. Kept: the main group is one answer.",
        columns=("pair", "labels", "score", "main group", "gains", "kept"),
        rows=tuple((_pair(one.pair), _labels(one.pair), one.score, ", ".join(one.group), _gains(one),
                    "yes" if one.kept else "") for one in verdicts),
        command=_COMMAND,
    )  # fmt: skip


def _tested(test: Exam, verdicts: Sequence[Judged], candidates: dict[Pair, Profile]) -> TableFound:
    rows: list[tuple[Cell, ...]] = []
    for one in [verdict for verdict in verdicts if verdict.kept][:SHOWN]:
        for name in (candidates[one.pair].name, f"{candidates[one.pair].name}-null"):
            answers = test.steered(name, 1.0)
            again = judge(one.pair, test.plain, answers)
            target = dict(again.gains).get(one.group[0], 0)
            touched = round(100 * changed(test.plain, answers).value, 1)
            kind = "null" if name.endswith("null") else "pair"
            rows.append(
                (_pair(one.pair), _labels(one.pair), kind, one.group[0], target, again.score, touched, _gains(again))
            )
    return TableFound(
        title=f"The best pairs of dev on {len(test.samples)} test questions of type other",
        columns=("pair", "labels", "kind", "answer found on dev", "gained", "score", "answers changed %", "gains"),
        rows=tuple(rows),
        command=_COMMAND,
    )


def _pair(pair: Pair) -> str:
    return f"{pair.i} → {pair.j}"


def _labels(pair: Pair) -> str:
    return f"{pair.original} → {pair.target}"


def _gains(one: Judged) -> str:
    return ", ".join(f"{text} {gain:+d}" for text, gain in one.gains[:3] + one.gains[-2:]) if one.gains else "none"
