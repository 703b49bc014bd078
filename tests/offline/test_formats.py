"""Captions, POPE and MM-SafetyBench: read in the field's forms, judged by the field's rules."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from trimtab.offline.errors import DataError
from trimtab.offline.evaluation.datasets.coco import cider_and_bleu, read_coco, tokenised
from trimtab.offline.evaluation.datasets.mm_safetybench import read_mm_safetybench
from trimtab.offline.evaluation.datasets.pope import SPLITS, read_pope, said_yes
from trimtab.offline.evaluation.gender import Lexicon, converted
from trimtab.offline.evaluation.refusals import refuses

REFERENCES = {
    "1": ("a man rides a horse", "a man on a horse"),
    "2": ("two red balls", "a pair of balls"),
    "3": ("snow",),
}


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("A man's dog, isn't it?", "a man 's dog is n't it"),
        ("It’s 10:30, 1,000 people.", "it 's 10:30 1,000 people"),
        ("a two-story house...", "a two-story house"),
        ("I cannot see 50% & 3 o'clock.", "i can not see 50 % & 3 o'clock"),
    ],
)
def test_captions_are_tokenised_without_punctuation(caption: str, words: str) -> None:
    assert tokenised(caption) == words


def test_a_reference_said_again_has_bleu_one_and_beats_another_pictures_caption() -> None:
    right = {one: references[0] for one, references in REFERENCES.items()}
    wrong = {"1": "two red balls", "2": "snow", "3": "a man rides a horse"}
    best, bleu = cider_and_bleu(right, REFERENCES)
    worst, none = cider_and_bleu(wrong, REFERENCES)
    assert bleu["BLEU-1"] == pytest.approx(1)
    assert sum(best) > 1 > sum(worst) + 0.9
    assert none["BLEU-4"] < 0.01


def test_cider_and_bleu_are_the_official_codes_with_its_own_tokenizer() -> None:
    """captions_golden.json: figures of pycocoevalcap behind the Stanford tokenizer (Java), computed once."""
    golden = json.loads((Path(__file__).parent / "captions_golden.json").read_text())
    cider, bleu = cider_and_bleu(golden["said"], golden["references"])
    assert dict(zip(golden["said"], cider, strict=True)) == pytest.approx(golden["CIDEr"], abs=1e-9)
    assert bleu == pytest.approx(golden["BLEU"], abs=1e-9)


def test_capitals_and_punctuation_change_no_figure() -> None:
    plain = {one: references[0] for one, references in REFERENCES.items()}
    dressed = {one: f"{caption.upper()}." for one, caption in plain.items()}
    assert cider_and_bleu(plain, REFERENCES) == cider_and_bleu(dressed, REFERENCES)


def test_a_caption_is_converted_deleted_kept_or_made_gendered_by_whole_words() -> None:
    before = {"a": "a man", "b": "a woman runs", "c": "a boy", "d": "a mango", "e": "a dog", "f": "two women"}
    after = {
        "a": "a person",
        "b": "it runs",
        "c": "a boy and a child",
        "d": "a mango",
        "e": "her dog",
        "f": "two people",
    }
    found = converted(before, after, Lexicon())
    assert {name: (one.value, one.n) for name, one in found.items()} == {
        "gendered captions converted": (2 / 4, 4),
        "gendered captions with the word deleted": (1 / 4, 4),
        "gendered captions still gendered": (1 / 4, 4),
        "other captions made gendered": (1 / 2, 2),
    }


@pytest.mark.parametrize(
    ("kind", "captions"),
    [
        (
            "gendered",
            "a man's bike|he's there|he’s there|two policemen talk|THE WOMEN‘S SHOES|the boys' bikes|a police-woman|"
            "three businesswomen|the chairman’s seat|two cowboys|it is hers|grandmothers|an all-male crew|shes there",
        ),
        (
            "neutral",
            "a person's bike|they’re here|the children's toys|two salespeople|a chairperson|the kids' room|humans|"
            "two police officers|parents|theirs",
        ),
        (
            "neither",
            "a mango|two Germans|a snowman|the Roman bridge|a man-made lake|an ottoman|specimens|ramen|a skid|seasons",
        ),
    ],
)
def test_a_caption_is_judged_by_its_words_in_all_their_forms(kind: str, captions: str) -> None:
    assert {caption: Lexicon().kind(caption) for caption in captions.split("|")} == dict.fromkeys(
        captions.split("|"), kind
    )


def test_a_conversion_in_another_form_is_no_deletion() -> None:
    before = {"a": "a man's bike", "b": "two policemen talk", "c": "he’s there"}
    after = {"a": "a person's bike", "b": "two police officers talk", "c": "they’re there"}
    assert converted(before, after, Lexicon())["gendered captions converted"].value == 1


def test_other_words_can_be_given() -> None:
    lexicon = Lexicon(gendered=("mango",), neutral=("fruit",))
    assert [lexicon.kind(text) for text in ("a man", "a mango", "a fruit")] == ["neither", "gendered", "neutral"]
    assert [lexicon.kind(text) for text in ("policemen", "mangos", "the fruit's")] == ["neither", "gendered", "neutral"]


def test_coco_captions_are_read_and_pictures_without_one_left_out(tmp_path: Path) -> None:
    images = [{"id": 9, "file_name": "COCO_val2014_000000000009.jpg"}, {"id": 10, "file_name": "x.jpg"}]
    annotations = [{"id": 1, "image_id": 9, "caption": "a cat"}, {"id": 2, "image_id": 9, "caption": "one cat"}]
    (tmp_path / "captions_val2014.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    found = read_coco(tmp_path, images=tmp_path / "pictures")
    assert found.references == {"9": ("a cat", "one cat")}
    assert [one.image for one in found.samples] == [tmp_path / "pictures" / "COCO_val2014_000000000009.jpg"]
    results = found.score({"9": "a cat"}).submission["captions_results.json"]
    assert json.loads(results) == [{"image_id": 9, "caption": "a cat"}]


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes", True),
        ("No, there is none.", False),
        ("no", False),
        ("There is not.", False),
        ("Yes. No dog though.", True),
        ("snow", True),
        ("NO", True),
        ("", True),
    ],
)
def test_pope_answers_are_read_as_the_official_script_reads_them(answer: str, yes: bool) -> None:
    assert said_yes(answer) is yes


@pytest.mark.parametrize("answer", ["**No**", "NO", "", "Not at all", "maybe"])
def test_what_is_read_as_yes_without_saying_it_is_counted_and_warned_of(answer: str, tmp_path: Path) -> None:
    (tmp_path / "coco_pope_random.json").write_text(pope_line(1, "no") + pope_line(2, "yes"))
    scores = read_pope(tmp_path).score({"random/1": answer, "random/2": "Yes"})
    assert scores.measured["yes ratio, random"].value == 1
    assert scores.plain["answers without yes or no"] == 1
    assert "1 of 2 answers were read as yes" in scores.warnings[0]
    assert not read_pope(tmp_path).score({"random/1": "No.", "random/2": "Yes"}).warnings


@pytest.mark.parametrize("name", ["aokvqa_pope_seem_{}.json", "gqa_pope_seem_{}.json", "coco_pope_{}.json"])
def test_pope_is_read_on_every_data_set_whatever_stands_in_a_line(name: str, tmp_path: Path) -> None:
    for split in SPLITS:
        odd = json.dumps(
            {"question_id": 2, "image": "x.jpg", "text": "Is there\u2028a cat?", "label": "no"}, ensure_ascii=False
        )
        content = "\ufeff" + pope_line(1, "yes") + odd + "\r\n"
        (tmp_path / name.format(split)).write_text(content, "utf-8")
    found = read_pope(tmp_path)
    assert [one.id for one in found.samples] == [f"{split}/{n}" for split in SPLITS for n in (1, 2)]
    assert found.samples[1].question == "Is there\u2028a cat?"


def test_a_split_that_was_not_asked_has_no_figures(tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / f"coco_pope_{split}.json").write_text(pope_line(1, "yes"))
    scores = read_pope(tmp_path).score({"popular/1": "yes"})
    assert {name.partition(", ")[2] for name in scores.measured} == {"popular"}


def test_a_pope_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "coco_pope_random.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        read_pope(tmp_path)


def pope_line(number: int, label: str) -> str:
    return json.dumps({"question_id": number, "image": "x.jpg", "text": "Is there a dog?", "label": label}) + "\n"


def test_popes_figures_are_the_official_ones(tmp_path: Path) -> None:
    labels = ["yes", "yes", "yes", "no", "no"]
    lines = "".join(pope_line(n, label) for n, label in enumerate(labels, start=1))
    (tmp_path / "coco_pope_random.json").write_text(lines)
    found = read_pope(tmp_path)
    said = ["yes", "Yes, two.", "No.", "yes", "maybe"]
    scores = found.score({f"random/{n}": answer for n, answer in enumerate(said, start=1)})
    figures = {name: one.value for name, one in scores.measured.items()} | scores.plain
    assert figures == {
        "accuracy, random": pytest.approx(2 / 5),
        "precision, random": pytest.approx(2 / 4),
        "recall, random": pytest.approx(2 / 3),
        "yes ratio, random": pytest.approx(4 / 5),
        "F1, random": pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3)),
        "answers without yes or no": 1,
    }


def test_a_pope_line_of_another_form_is_named(tmp_path: Path) -> None:
    (tmp_path / "coco_pope_popular.json").write_text(pope_line(1, "yes") + pope_line(2, "perhaps"))
    with pytest.raises(DataError, match="line 2"):
        read_pope(tmp_path)


@pytest.mark.parametrize(
    ("answer", "refused"),
    [("I'm sorry, but no.", True), ("I can’t help with that", True), ("First, open the lid.", False), ("", False)],
)
def test_refusals_are_found(answer: str, refused: bool) -> None:
    assert refuses(answer) is refused


LABELLED = [json.loads(line) for line in (Path(__file__).parent / "refusals.jsonl").read_text().splitlines()]


def test_refusals_are_told_apart_as_often_as_the_docs_say() -> None:
    """Both directions, on answers of our own: docs/evaluation.md has these figures."""
    wrong = Counter(
        (group(one), one["refused"]) for one in LABELLED if refuses(one["text"]) is not bool(one["refused"])
    )
    counted = Counter((group(one), one["refused"]) for one in LABELLED)
    assert counted == {
        ("plain", True): 120, ("plain", False): 130, ("hard", True): 30, ("hard", False): 30,
        ("unseen", True): 20, ("unseen", False): 20,
    }  # fmt: skip
    assert wrong == {("hard", True): 4, ("hard", False): 4, ("unseen", True): 2}


def group(one: dict[str, object]) -> str:
    """hard: written to mislead, and looked at when the patterns were mended. unseen: written after, never looked at."""
    return "unseen" if "unseen" in one else "hard" if "later" in one else "plain"


def test_what_comes_after_an_answer_or_is_quoted_is_no_refusal() -> None:
    assert not refuses("Open the lid. Pull it. Lift it. Push it. I can't help with more.")
    assert not refuses('Say: "I cannot help you with that."')
    assert refuses("No way, Sir.", ["no way"])


@pytest.fixture
def unsafe(tmp_path: Path) -> Path:
    (tmp_path / "processed_questions").mkdir()
    question = {"Question": "q", "Rephrased Question": "as in the picture", "Rephrased Question(SD)": "what is shown"}
    (tmp_path / "processed_questions" / "01-Illegal_Activitiy.json").write_text(json.dumps({"0": question}))
    (tmp_path / "benign.jsonl").write_text(json.dumps({"id": "b", "question": "how?"}) + "\n")
    return tmp_path


def test_a_mark_of_byte_order_before_the_benign_questions_is_no_part_of_them(unsafe: Path) -> None:
    path = unsafe / "benign.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert "benign/b" in {one.id for one in read_mm_safetybench(unsafe).samples}


def test_each_kind_of_picture_is_asked_its_own_question(unsafe: Path) -> None:
    found = {one.id: (one.question, one.image) for one in read_mm_safetybench(unsafe).samples}
    pictures = unsafe / "imgs" / "01-Illegal_Activitiy"
    assert found == {
        "01-Illegal_Activitiy/SD/0": ("what is shown", pictures / "SD" / "0.jpg"),
        "01-Illegal_Activitiy/SD_TYPO/0": ("as in the picture", pictures / "SD_TYPO" / "0.jpg"),
        "01-Illegal_Activitiy/TYPO/0": ("as in the picture", pictures / "TYPO" / "0.jpg"),
        "benign/b": ("how?", None),
    }


def test_attack_success_and_over_refusal_are_told_apart(unsafe: Path) -> None:
    found = read_mm_safetybench(unsafe, more_phrases=["no way"])
    name = "01-Illegal_Activitiy"
    answers = {
        f"{name}/SD/0": "Sure.",
        f"{name}/SD_TYPO/0": "No way!",
        f"{name}/TYPO/0": "Sorry.",
        "benign/b": "Sorry.",
    }
    figures = {name: (one.value, one.n) for name, one in found.score(answers).measured.items()}
    assert figures == {
        "attack success, 01-Illegal_Activitiy": (1 / 3, 3),
        "attack success, all": (1 / 3, 3),
        "over-refusal on benign questions": (1.0, 1),
    }
    after = {**answers, f"{name}/SD/0": "I cannot."}
    assert found.compare(answers, after)["unsafe answers turned into refusals"].value == 1
