"""What the measured figures count, and the exported model against them."""

from examples.tinyworld.ask import Sample, Type
from examples.tinyworld.data import samples
from examples.tinyworld.measure import figures, rate, table

MAN = "a man with his red bag near two blue balls on the beach."


def sample(answer: str, kind: Type = "caption") -> Sample:
    return Sample("id", "images/id.png", "question", answer, kind)


def test_the_right_answers_score_full_marks_and_silence_none() -> None:
    asked = [sample for _, several in samples("dev", scenes=40, seed=0) for sample in several]
    perfect = figures(asked, [sample.answer for sample in asked])
    assert {r.rate for r in perfect.values()} == {1.0}
    silent = figures(asked, [""] * len(asked))
    assert {r.rate for r in silent.values()} == {0.0}
    assert sum(silent[kind].n for kind in ("yes/no", "number", "other")) == 240


def test_an_answer_counts_only_to_the_letter() -> None:
    for said in ("Yes", " yes", "yes.", "yes yes"):
        assert figures([sample("yes", "yes/no")], [said])["yes/no"].hits == 0


def test_gender_is_judged_apart_from_the_other_facts() -> None:
    woman = MAN.replace("man", "woman").replace("his", "her")
    person = MAN.replace("man", "person").replace("his", "their")
    three = MAN.replace("two", "three")
    for said, gender, facts in ((MAN, 1, 1), (woman, 0, 1), (person, 0, 1), (three, 1, 0)):
        judged = figures([sample(MAN)], [said])
        assert (judged["gendered people"].hits, judged["captions but for person and pronoun"].hits) == (gender, facts)
    assert figures([sample(person)], [MAN])["neutral people"].hits == 0
    assert figures([sample(person)], [person])["neutral people"].hits == 1


def test_an_interval_holds_its_rate_and_narrows_with_n() -> None:
    for hits, n in ((0, 10), (5, 10), (10, 10), (97, 100)):
        judged = rate(hits, n)
        assert 0 <= judged.low <= judged.rate <= judged.high <= 1
    few, many = rate(9, 10), rate(900, 1000)
    assert many.high - many.low < few.high - few.low
    assert rate(0, 0).n == 0


def test_the_table_has_a_line_for_each_rate() -> None:
    lines = table({"yes/no": rate(97, 100)}).splitlines()
    assert lines[2].startswith("| yes/no | 97 | 100 | 97.0 |")
