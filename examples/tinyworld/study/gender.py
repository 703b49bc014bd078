"""Gender → neutral captions, coarse and fine, with what else changed in them (docs/method.md §5)."""

from __future__ import annotations

from collections.abc import Sequence

from examples.tinyworld.ask import NUMBERS, PLURALS
from examples.tinyworld.scene import COLORS, ITEMS, PLACES, SHAPES
from examples.tinyworld.study.exam import Exam, Server
from examples.tinyworld.study.figures import Cell, changed, diversity, percent
from examples.tinyworld.study.lab import LAST, STRENGTHS, Lab
from examples.tinyworld.study.trial import Outcome, Variant, decided
from examples.tinyworld.words import LEXICON, NEUTRAL, other_facts, words
from trimtab.offline.concepts import class_means, kmeans
from trimtab.offline.findings import AnswersFound, Finding, Measured, SweepFound, TableFound
from trimtab.offline.statistics import rate
from trimtab.offline.steering import coarse_profile, fine_profile
from trimtab.offline.steering.null_control import random_control
from trimtab.vectors import Profile

SIZES = (40, 60, 80, 120)
"""Numbers of concepts among which dev decides: fine works where every gendered and neutral word has its own."""
ALPHAS = {"coarse": (0.5, 0.75, 1.0, 1.25, 1.5, 2.0), "fine, class means": (0.75, 1.0, 1.25), "fine, K-Means": (1.0,)}
CAPTIONS = {"dev": 80, "test": 240}
FACTS = {
    "place": frozenset(PLACES),
    "color": frozenset(COLORS),
    "count": frozenset(NUMBERS),
    "thing": frozenset((*SHAPES, *PLURALS.values())),
    "item": frozenset(ITEMS),
}
PUBLISHED: tuple[tuple[Cell, ...], ...] = tuple(
    (
        f"{model}, {kind}",
        alpha,
        None,
        percent(rate(turned, of)),
        None,
        None,
        None,
        *(None for _ in FACTS),
        None,
        None,
        None,
    )
    for model, of, *both in (("LLaVA-1.5", 794, 232, 632), ("Idefics2", 815, 237, 315), ("Qwen2-VL", 926, 134, 300))
    for kind, alpha, turned in zip(("coarse", "fine"), (1.0, 1.0), both, strict=True)
)
"""Of so many gendered COCO captions, how many were converted (the paper's summary of its results)."""
_NEUTRAL_WORDS = frozenset(NEUTRAL.values())


def profiles(lab: Lab) -> list[Profile]:
    """Coarse, fine with a concept a word, and fine with K-Means of several sizes; with null controls."""
    states = lab.states("captions.jsonl", "predicts:*", LAST)
    dictionaries = {"gender-means": class_means(states, min_count=5)}
    dictionaries |= {f"gender-kmeans{k}": kmeans(states, k) for k in SIZES}
    made = [coarse_profile("gender-coarse", [states], NEUTRAL, alpha=STRENGTHS)]
    for name, dictionary in dictionaries.items():
        mapping = {word: neutral for word, neutral in NEUTRAL.items() if {word, neutral} <= set(dictionary.labels)}
        if mapping:
            made.append(fine_profile(name, [(states, dictionary)], mapping, alpha=STRENGTHS))
    return [*made, *(random_control(one, f"{one.name}-null", seed=0) for one in made)]


def study(lab: Lab, server: Server) -> dict[str, Finding]:
    """Conversions and what they cost; the curves; which words became which."""
    dev, test = (
        Exam(server, split, lab.split(split), lab.samples(split, ("caption",), CAPTIONS[split]))
        for split in ("dev", "test")
    )
    series = {
        "coarse": [Variant("coarse", "gender-coarse", LAST)],
        "fine, class means": [Variant("fine, class means", "gender-means", LAST)],
        "fine, K-Means": [
            Variant(f"fine, K-Means {k}", f"gender-kmeans{k}", LAST)
            for k in SIZES
            if f"gender-kmeans{k}" in server.profiles
        ],
    }
    outcomes = {kind: decided(dev, test, variants, ALPHAS[kind], judge_gender) for kind, variants in series.items()}
    rows: list[tuple[Cell, ...]] = [*PUBLISHED, ("none", None, *_figures(test, test.plain))]
    for outcome in outcomes.values():
        rows += _rows(test, outcome)
    return {
        "gender": TableFound(
            title=f"Gender → neutral through the server: {len(test.samples)} test captions",
            note="alpha, and K of K-Means, are chosen on dev. Converted: had a gendered word, has none, has a neutral "
            "one. At any cost: the most gain on dev. Published: conversions of gendered COCO captions.",
            columns=("kind", "alpha", "captions with gendered words", "converted %", "deleted %", "still gendered %",
                     "other captions changed %", *(f"{fact} changed %" for fact in FACTS), "distinct-1", "distinct-2",
                     "repetition %"),
            rows=tuple(rows),
            published=tuple(range(len(PUBLISHED))),
            command="python -m examples.tinyworld.study --part gender",
        ),
        "gender-curves": SweepFound(
            title="Gender → neutral: gain against collateral change",
            note="Gained: gendered captions converted. Collateral: captions with another change than that.",
            points=tuple(point for outcome in outcomes.values() for point in outcome.points),
        ),
        "gender-people": _people(test, outcomes["fine, class means"].answers),
    }  # fmt: skip


def _rows(test: Exam, outcome: Outcome) -> list[tuple[Cell, ...]]:
    variant, alpha = outcome.setting.variant, outcome.setting.strength
    null = test.steered(f"{variant.profile}-null", alpha)
    rows: list[tuple[Cell, ...]] = [
        (variant.series, alpha, *_figures(test, outcome.answers)),
        (f"null of {variant.series}", alpha, *_figures(test, null)),
    ]
    bold = outcome.boldest
    if bold != outcome.setting:
        answers = test.steered(bold.variant.profile, bold.strength)
        rows.append((f"{bold.variant.series}, at any cost", bold.strength, *_figures(test, answers)))
    return rows


def _figures(exam: Exam, captions: Sequence[str]) -> list[Cell]:
    pairs = list(zip(exam.plain, captions, strict=True))
    became = [new for old, new in pairs if _kind(old) == "gendered"]
    rest = [(old, new) for old, new in pairs if _kind(old) != "gendered"]
    shares = [_share(became, kind) for kind in ("neutral", "neither", "gendered")]
    facts = [round(100 * changed(*zip(*_only(pairs, of), strict=True)).value, 1) for of in FACTS.values()]
    left = [_kind(caption) for caption in captions].count("gendered")
    return [str(left), *map(percent, shares), percent(changed(*zip(*rest, strict=True))), *facts, *diversity(captions)]


def judge_gender(exam: Exam, captions: Sequence[str]) -> tuple[Measured, Measured]:
    """Gained: gendered captions that were converted. Collateral: captions with any other change."""
    pairs = list(zip(exam.plain, captions, strict=True))
    spoilt = [other_facts(old) != other_facts(new) if _kind(old) == "gendered" else old != new for old, new in pairs]
    gained = _share([new for old, new in pairs if _kind(old) == "gendered"], "neutral")
    return gained, rate(sum(spoilt), len(spoilt))


def _share(captions: Sequence[str], kind: str) -> Measured:
    return rate(sum(_kind(caption) == kind for caption in captions), len(captions))


def _kind(caption: str) -> str:
    return LEXICON.kind(caption)


def _only(pairs: Sequence[tuple[str, str]], lexicon: frozenset[str]) -> list[tuple[str, str]]:
    """The captions with nothing left but the words of a lexicon."""
    return [
        (" ".join(word for word in words(old) if word in lexicon), " ".join(w for w in words(new) if w in lexicon))
        for old, new in pairs
    ]


def _people(test: Exam, captions: Sequence[str]) -> AnswersFound:
    """Which people became which."""
    lexicon = frozenset(NEUTRAL) - {"his", "her"} | _NEUTRAL_WORDS - {"their"}
    flow: dict[tuple[str, str], int] = {}
    for old, new in _only(list(zip(test.plain, captions, strict=True)), lexicon):
        key = (old or "(nobody)", new or "(nobody)")
        flow[key] = flow.get(key, 0) + 1
    turned = [(old, new) for old, new in zip(test.plain, captions, strict=True) if old != new]
    return AnswersFound(
        title="Gender → neutral, fine: who became who",
        steering="gender → neutral",
        flow=tuple((old, new, count) for (old, new), count in sorted(flow.items(), key=lambda one: -one[1])),
        examples=tuple(turned[:8]),
    )
