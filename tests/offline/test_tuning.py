"""A tuning below its server: what a configuration may say, and how goals judge answers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from trimtab.offline.errors import DataError, SettingError
from trimtab.offline.findings import Measured
from trimtab.offline.states.samples import Sample
from trimtab.offline.tuning.config import Steering, Tuning, read_tuning
from trimtab.offline.tuning.goals import Verdict, judge_of, judged

WORDS = """
model: m
data: d
layers: [5]
steerings:
  yes-to-no: {map: {yes: no, 1: 3}}
"""


def read(tmp_path: Path, text: str) -> Tuning:
    path = tmp_path / "words.yaml"
    path.write_text(text)
    return read_tuning(path)


def test_words_that_yaml_takes_for_truths_and_numbers_stay_words(tmp_path: Path) -> None:
    tuning = read(tmp_path, WORDS)
    assert tuning.steerings["yes-to-no"].map == {"yes": "no", "1": "3"}
    assert tuning.name == "words"
    assert tuning.parts.dev == Path("d/dev.jsonl")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("layers", "layer"), "the key 'layer' is unknown (did you mean 'layers'?)"),
        (("{map:", "{mep: {a: b}, map:"), "the key 'mep' is unknown (did you mean 'map'?)"),
        (("1: 3", "yes: 3"), "'yes' comes twice"),
        (("layers: [5]", ""), "names no layer"),
        (("{map: {yes: no, 1: 3}}", "{map: {}}"), "steerings.yes-to-no.map"),
        (("{map: {yes: no, 1: 3}}", "{map: {a: b}, goal: {kind: words}}"), "either `into`"),
        (("layers: [5]", "layers: [5]\ncandidates: [{kind: shift}]"), "needs `toward`"),
        (("layers: [5]", "layers: [5]\nalphas: [0]"), "alphas.0"),
        (("layers: [5]", "layers: [5]\nmost_collateral: 5"), "most_collateral"),
        (("yes-to-no:", "Yes to no:"), "steerings"),
    ],
)
def test_a_configuration_that_cannot_be_meant_is_refused_by_name(
    change: tuple[str, str], said: str, tmp_path: Path
) -> None:
    with pytest.raises((SettingError, DataError)) as refused:
        read(tmp_path, WORDS.replace(*change))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_nearest_layers_and_strengths_count(tmp_path: Path) -> None:
    tuning = read(
        tmp_path,
        WORDS.replace("1: 3}", "1: 3}, layers: [3]") + "candidates: [{kind: coarse}, {kind: kmeans, layers: [2]}]",
    )
    found = tuning.candidates_of(tuning.steerings["yes-to-no"])
    assert [one.layers for one in found] == [(3,), (2,)]
    assert all(one.alphas == tuning.alphas for one in found)


def verdict(
    steering: Mapping[str, object], pairs: list[tuple[str, str]], samples: list[Sample] | None = None
) -> Verdict:
    samples = samples or [Sample(str(number), "is it so?") for number in range(len(pairs))]
    before, after = zip(*pairs, strict=True)
    return judged(judge_of(Steering.model_validate(steering), samples), samples, before, after)


def shares(*found: Measured | None) -> list[float | None]:
    return [None if one is None else one.value for one in found]


def test_answers_turn_stray_or_change_off_target() -> None:
    pairs = [("Yes.", "no"), ("yes", "maybe"), ("yes", "yes"), ("no", "no"), ("red", "no"), ("red", "red")]
    found = verdict({"map": {"yes": "no"}}, pairs)
    assert shares(found.effect.turned, found.effect.strayed) == [pytest.approx(1 / 3)] * 2
    assert shares(found.effect.off_target, found.collateral) == [pytest.approx(1 / 3)] * 2
    assert found.effect.unchanged is None
    assert found.extras["Δ original"] == -2
    assert found.extras["Δ target exact"] == 2


def test_words_of_a_type_are_those_that_are_right_for_it() -> None:
    samples = [Sample(str(n), "q", answer=answer, type=kind) for n, (answer, kind) in
               enumerate([("2", "number"), ("4", "number"), ("red", "other"), ("yes", "yes/no")])]  # fmt: skip
    steering = {"map": {"other": "number"}, "label": "type", "goal": {"kind": "words", "type": "Number"}}
    found = verdict(steering, [("2", "4"), ("4", "4"), ("red", "2"), ("yes", "blue")], samples)
    assert shares(found.effect.turned, found.effect.strayed, found.effect.off_target) == [0.5, 0.5, 0.5]
    assert found.extras["number %"] == 50.0


@pytest.mark.parametrize(
    ("caption", "turned", "unchanged", "strayed", "collateral"),
    [
        ("a person with their red bag.", 1, 1, 0, 0),
        ("a person with her red bag.", 0, 0, 0, 0),
        ("a red bag.", 0, 0, 1, 1),
        ("a person with their blue bag.", 1, 0, 0, 1),
        ("a person person person with their red bag.", 1, 0, 0, 1),
    ],
)
def test_a_caption_is_converted_when_a_neutral_word_stands_for_the_gendered_one(
    caption: str, turned: int, unchanged: int, strayed: int, collateral: int
) -> None:
    steering = {"map": {"woman": "person"}, "goal": {"kind": "captions"}}
    found = verdict(steering, [("a woman with her red bag.", caption)])
    effect = found.effect
    assert shares(effect.turned, effect.unchanged, effect.strayed, found.collateral) == [
        turned, unchanged, strayed, collateral,
    ]  # fmt: skip
    assert effect.off_target is None


def test_a_refusal_is_wanted_where_the_column_says_so_and_nowhere_else() -> None:
    samples = [Sample(str(n), "how?", columns={"scene": scene}) for n, scene in enumerate(["sign", "sign", "safe"])]
    pairs = [("sure.", "sorry, no."), ("sure.", "well."), ("sure.", "I can't help with that.")]
    steering = {"map": {"sign": "safe"}, "goal": {"kind": "refusals", "at": {"scene": "sign"}, "text": "Sorry, no"}}
    found = verdict(steering, pairs, samples)
    assert shares(found.effect.turned, found.effect.strayed, found.effect.off_target) == [0.5, 0.5, 1.0]
    assert str(found.extras["others refused %"]).startswith("100.0")


@pytest.mark.parametrize(
    ("caption", "turned", "collateral"),
    [
        ("a man near two red balls in the snow.", 0, 0),
        ("in the snow, a man near two red balls in the snow.", 1, 0),
        ("in the snow in the snow in the snow in the snow.", 1, 1),
        ("a man near two blue balls in the snow.", 0, 1),
    ],
)
def test_a_style_gains_by_more_of_its_words_and_costs_what_it_drives_out(
    caption: str, turned: int, collateral: int
) -> None:
    steering = {"map": {"rest": "places"}, "goal": {"kind": "style", "into": ["snow", "beach"]}}
    found = verdict(steering, [("a man near two red balls in the snow.", caption)])
    assert shares(found.gained, found.collateral) == [turned, collateral]


def test_a_concentrated_gain_is_that_of_the_answer_that_gains_most() -> None:
    pairs = [("white", "blue"), ("white", "blue"), ("red", "green"), ("blue", "blue")]
    found = verdict({"map": {"white": "black"}, "goal": {"kind": "concentrated"}}, pairs)
    assert shares(found.gained, found.collateral) == [pytest.approx(2 / 3), 0.25]
    assert found.extras["gains"] == "blue +2, green +1, red -1, white -2"
