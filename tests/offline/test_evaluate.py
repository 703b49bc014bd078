"""`trimtab evaluate` as it is typed: tinyworld's split in each form, against an endpoint that knows the answers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from examples.tinyworld.ask import CAPTION_PROMPT
from examples.tinyworld.data import read_split, write_split
from examples.tinyworld.formats import FORMATS
from examples.tinyworld.words import neutralised
from tests.offline.fake_endpoint import FakeEndpoint, picture_of, question_of
from trimtab.offline.cli.app import app
from trimtab.offline.findings import AnswersFound, TableFound, read_findings
from trimtab.offline.states.data_folder import DataFolder, write_data_folder

PROMPTS = {"vqav2": "{question}", "coco": CAPTION_PROMPT, "pope": "{question}", "mm-safetybench": "{question}"}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small split in each form."""
    house = tmp_path_factory.mktemp("formats")
    write_split(house / "split", "dev", 6, seed=5)
    for name, write in FORMATS.items():
        (house / name).mkdir()
        write(house / name, house / "split", read_split(house / "split"))
    return house


@pytest.fixture(scope="module")
def server(house: Path) -> Iterator[FakeEndpoint]:
    """It knows the right answer to each question about each picture; steered, it says no for yes, and is neutral."""
    from trimtab.offline.evaluation.data_url import data_url

    known = {
        (one.question, data_url(house / "split" / one.image)): one.answer for one in read_split(house / "split")
    } | {
        (one["text"], data_url(house / "pope" / "images" / one["image"])): one["label"]
        for path in (house / "pope").glob("*.json")
        for one in map(json.loads, path.read_text().splitlines())
    }

    def reply(body: dict[str, Any]) -> str:
        answer = str(known[question_of(body), picture_of(body)])
        if not body.get("steering"):
            return answer
        return neutralised(answer) if question_of(body) == CAPTION_PROMPT else ("no" if answer == "yes" else answer)

    running = FakeEndpoint(reply)
    yield running
    running.stop()


def evaluate(server: FakeEndpoint, house: Path, format: str, out: Path, *more: object) -> Result:
    arguments = (format, house / format, "--base-url", server.url, "--served-model-name", "m", "--out", out)
    return CliRunner().invoke(app, ["evaluate", *map(str, (*arguments, "--prompt", PROMPTS[format], *more))])


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def figures(out: Path) -> dict[str, float]:
    found = results(out)
    rates: dict[str, float] = {name: one["value"] for name, one in found["measured"].items()}
    return {**rates, **found["plain"]}


def test_right_answers_get_the_best_figures_in_every_form(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    for format in FORMATS:
        result = evaluate(server, house, format, tmp_path / format)
        assert result.exit_code == 0, result.output
        assert str(tmp_path / format / "results.json") in result.stdout
    vqa, coco, pope, safety = (figures(tmp_path / format) for format in FORMATS)
    assert {vqa["official, all"], vqa["min(1, n/3), all"]} == {1}
    assert coco["BLEU-4"] == pytest.approx(1)
    assert coco["CIDEr"] == pytest.approx(10)
    assert {pope[f"F1, {split}"] for split in ("random", "popular", "adversarial")} == {1}
    assert (safety["attack success, all"], safety["over-refusal on benign questions"]) == (0, 0)


def test_a_steered_run_is_set_beside_the_unsteered_one(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "vqav2", plain).exit_code == 0
    more = ("--steering", "p", "--against", plain, "--map", "yes=no")
    assert evaluate(server, house, "vqav2", steered, *more).exit_code == 0
    found = results(steered)
    yes = sum(one == "yes" for one, _, n in found["conversions"] for _ in range(n))
    assert found["flips"]["turned"]["value"] == 1
    assert found["flips"]["off_target"]["value"] == 0
    assert found["occurrences"]["yes"]["before"]["exact"] == yes > 0 == found["occurrences"]["yes"]["after"]["exact"]
    assert found["served"] == {"profile": "p", "alpha": "1.0", "digest": server.digest}
    written = read_findings(steered)
    flow, table = written["answers-vqav2"], written["table-vqav2"]
    assert isinstance(flow, AnswersFound)
    assert isinstance(table, TableFound)
    assert ("yes", "no", yes) in flow.flow
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_what_turned_heads_the_table_and_the_page(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "vqav2", plain).exit_code == 0
    more = ("--steering", "p", "--against", plain, "--map", "yes=no")
    assert evaluate(server, house, "vqav2", steered, *more).exit_code == 0
    written = read_findings(steered)
    table, flow = written["table-vqav2"], written["answers-vqav2"]
    assert isinstance(table, TableFound)
    assert [str(row[0]).partition(":")[0] for row in table.rows[:3]] == ["turned", "strayed", "off target"]
    assert flow.note.startswith("turned: source answers that became their target 100.0 %")


@pytest.mark.parametrize(
    ("format", "mapping"),
    [("vqav2", "Yes=No."), ("coco", "man=person"), ("coco", "gendered=neutral"), ("pope", "yes=no")],
)
def test_a_mapping_is_read_as_the_answers_are(
    server: FakeEndpoint, house: Path, tmp_path: Path, format: str, mapping: str
) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, format, plain).exit_code == 0
    result = evaluate(server, house, format, steered, "--steering", "p", "--against", plain, "--map", mapping)
    assert result.exit_code == 0, result.output
    found = results(steered)["flips"]
    assert (found["turned"]["value"], found["strayed"]["value"]) == (1, 0)
    assert found["turned"]["n"] > 0
    assert found["off_target"]["value"] == 0


def test_a_number_word_is_mapped_as_its_number(house: Path, tmp_path: Path) -> None:
    counting = FakeEndpoint(lambda body: "Three." if body.get("steering") else "two")
    try:
        assert evaluate(counting, house, "vqav2", tmp_path / "plain").exit_code == 0
        more = ("--steering", "p", "--against", tmp_path / "plain", "--map", "two=three")
        assert evaluate(counting, house, "vqav2", tmp_path / "steered", *more).exit_code == 0
    finally:
        counting.stop()
    assert results(tmp_path / "steered")["flips"]["turned"]["value"] == 1


@pytest.mark.parametrize(
    ("format", "mapping", "sentence"),
    [
        ("vqav2", "elephant=no", "no answer of the unsteered run is 'elephant'"),
        ("vqav2", "one=1", "both are '1' here"),
        ("coco", "dog=person", "is no gendered and no neutral word"),
        ("coco", "man=woman", "both are 'gendered' here"),
        ("pope", "maybe=no", "are read as yes or no"),
        ("mm-safetybench", "yes=no", "map among these"),
    ],
)
def test_a_mapping_without_meaning_is_refused_before_anything_is_asked(
    server: FakeEndpoint, house: Path, tmp_path: Path, format: str, mapping: str, sentence: str
) -> None:
    assert evaluate(server, house, format, tmp_path / "plain").exit_code == 0
    before = len(server.seen)
    result = evaluate(server, house, format, tmp_path / "out", "--against", tmp_path / "plain", "--map", mapping)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(server.seen) == before


def test_what_one_run_has_no_answer_to_counts_in_neither(house: Path, tmp_path: Path) -> None:
    picky = FakeEndpoint(lambda body: "yes" if body.get("steering") is None else "no")
    try:
        assert evaluate(picky, house, "pope", tmp_path / "plain").exit_code == 0
        one = question_of(picky.seen[0])
        picky.refused = {one}
        more = ("--steering", "p", "--against", tmp_path / "plain", "--max-refused", 1000)
        result = evaluate(picky, house, "pope", tmp_path / "out", *more)
    finally:
        picky.stop()
    assert result.exit_code == 0, result.output
    found = results(tmp_path / "out")
    left = sum(found["skipped"].values())
    assert found["skipped"] == {"the endpoint refused it: the prompt is too long": left}
    assert found["answered_in_one_run_only"] == left > 0
    assert found["against"]["answered"] == found["answered"]
    assert found["change"]["answers changed"]["n"] == found["answered"]


def test_a_draw_takes_its_share_of_each_type_and_the_same_samples_again(
    server: FakeEndpoint, house: Path, tmp_path: Path
) -> None:
    asked = []
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        server.seen.clear()
        assert evaluate(server, house, "pope", tmp_path / out, "--draw", 12, "--seed", seed).exit_code == 0
        asked.append(sorted(json.loads(line)["id"] for line in (tmp_path / out / "answers.jsonl").open()))
    assert asked[0] == asked[1] != asked[2]
    assert {one.partition("/")[0] for one in asked[0]} == {"random", "popular", "adversarial"}
    result = evaluate(
        server, house, "pope", tmp_path / "four", "--draw", 12, "--seed", 1, "--against", tmp_path / "one"
    )
    assert "differ in nothing but the steering" in result.stderr


def test_the_password_of_an_address_is_written_nowhere(
    server: FakeEndpoint, house: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THE_KEY", "sk-very-secret")
    address = server.url.replace("http://", "http://me:hush-hush@") + "?token=hush-too"
    words = [
        *("evaluate", "vqav2", house / "vqav2", "--base-url", address, "--served-model-name", "m"),
        *("--out", tmp_path / "out", "--prompt", "{question}", "--api-key-env", "THE_KEY"),
    ]
    monkeypatch.setattr("sys.argv", ["trimtab", *map(str, words)])
    result = CliRunner().invoke(app, list(map(str, words)))
    told = result.output + "".join(path.read_text() for path in (tmp_path / "out").iterdir())
    assert not [secret for secret in ("hush", "sk-very-secret") if secret in told]


def test_captions_made_neutral_are_counted_as_converted(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    plain, steered = tmp_path / "plain", tmp_path / "steered"
    assert evaluate(server, house, "coco", plain).exit_code == 0
    assert evaluate(server, house, "coco", steered, "--steering", "p", "--against", plain).exit_code == 0
    change = results(steered)["change"]
    assert change["gendered captions converted"]["value"] == 1
    assert change["gendered captions converted"]["n"] > 0


def test_a_conversion_that_broke_its_caption_is_told_apart_and_shown_first_with_its_picture(
    house: Path, tmp_path: Path
) -> None:
    told: dict[str, int] = {}

    def reply(body: dict[str, Any]) -> str:
        number = told.setdefault(picture_of(body), len(told))
        broken = "a person near an orange their orange their orange their"
        return ("a man near an orange", broken if number == 2 else "a person near an orange")[
            bool(body.get("steering"))
        ]

    saying = FakeEndpoint(reply)
    try:
        assert evaluate(saying, house, "coco", tmp_path / "plain").exit_code == 0
        result = evaluate(saying, house, "coco", tmp_path / "out", "--steering", "p", "--against", tmp_path / "plain")
    finally:
        saying.stop()
    assert result.exit_code == 0, result.output
    found = results(tmp_path / "out")
    asked = found["answered"]
    assert found["flips"]["turned"]["value"] == 1
    assert found["flips"]["unchanged"]["value"] == (asked - 1) / asked
    assert found["flips"]["stutter"]["value"] == 1 / asked
    assert found["change"]["gendered captions converted but broken"]["value"] == 1 / asked
    assert len(found["broken"]) == 1
    assert f"1 answers are broken: they lost or gained other words, or repeat themselves, as {found['broken'][0]}" in (
        " ".join(result.stderr.split())
    )
    written = read_findings(tmp_path / "out")
    flow, table = written["answers-coco"], written["table-coco"]
    assert isinstance(flow, AnswersFound)
    assert isinstance(table, TableFound)
    first = ["turned", "turned, otherwise unchanged", "strayed", "off target", "stutter"]
    assert [str(row[0]).partition(":")[0] for row in table.rows[:5]] == first
    assert [one.mark for one in flow.examples] == ["broken", ""]
    assert {one.question for one in flow.examples} == {CAPTION_PROMPT}
    assert flow.examples[0].after.endswith("their orange their")
    assert all((tmp_path / "out" / one.picture).is_file() for one in flow.examples)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A samples file of one's own: two types, one sample without an answer, one without a picture."""
    lines = [
        {"id": "a", "question": "how many?", "answer": "2", "type": "number"},
        {"id": "b", "question": "is it red?", "answer": "yes", "type": "yes/no"},
        {"id": "c", "question": "is it blue?", "answer": "yes", "type": "yes/no"},
        {"id": "d", "question": "what is it?"},
    ]
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_samples_of_ones_own_are_evaluated(own: Path, tmp_path: Path) -> None:
    said = {"how many?": "Two.", "is it red?": "yes", "is it blue?": "no", "what is it?": "a box box box"}

    def reply(body: dict[str, Any]) -> str:
        answer = said[question_of(body)]
        return "no" if body.get("steering") and answer == "yes" else answer

    speaking = FakeEndpoint(reply)
    try:
        common = ("samples", own, "--base-url", speaking.url, "--served-model-name", "m")
        plain = CliRunner().invoke(app, ["evaluate", *map(str, (*common, "--out", tmp_path / "plain"))])
        assert plain.exit_code == 0, plain.output
        more = ("--out", tmp_path / "out", "--steering", "p", "--against", tmp_path / "plain", "--map", "yes=no")
        steered = CliRunner().invoke(app, ["evaluate", *map(str, (*common, *more))])
        assert steered.exit_code == 0, steered.output
    finally:
        speaking.stop()
    assert [question_of(body) for body in speaking.seen if not body.get("steering")].count("how many?") == 1
    measured = results(tmp_path / "plain")["measured"]
    assert {name: (one["value"], one["n"]) for name, one in measured.items()} == {
        "accuracy to the letter, number": (0, 1),
        "accuracy to the letter, yes/no": (1 / 2, 2),
        "accuracy to the letter, all": (1 / 3, 3),
        "accuracy, normalised, number": (1, 1),
        "accuracy, normalised, yes/no": (1 / 2, 2),
        "accuracy, normalised, all": (2 / 3, 3),
        "answers that stutter": (1 / 4, 4),
    }
    found = results(tmp_path / "out")
    assert (found["flips"]["turned"]["value"], found["flips"]["off_target"]["value"]) == (1, 0)
    assert found["change"]["change of accuracy, normalised, all"]["value"] == pytest.approx(-1 / 3)
    assert [one for one in found["conversions"] if one[0] in ("yes", "2")] == [["2", "2", 1], ["yes", "no", 1]]
    assert found["plain"]["distinct-1"] == pytest.approx(4 / 7)


def test_samples_whose_answers_are_captions_are_judged_by_their_words(own: Path, tmp_path: Path) -> None:
    plain_and_steered = {
        "how many?": ("two men.", "two people."),
        "is it red?": ("a man's red box.", "a person's blue box."),
        "is it blue?": ("a child.", "a child."),
        "what is it?": ("a box.", "a box."),
    }
    speaking = FakeEndpoint(lambda body: plain_and_steered[question_of(body)][bool(body.get("steering"))])
    try:
        common = ("samples", own, "--captions", "--base-url", speaking.url, "--served-model-name", "m")
        for more in (("--out", tmp_path / "plain"), ("--out", tmp_path / "out", "--steering", "p", "--against",
                     tmp_path / "plain")):  # fmt: skip
            done = CliRunner().invoke(app, ["evaluate", *map(str, (*common, *more))])
            assert done.exit_code == 0, done.output
        refused = [
            CliRunner().invoke(app, ["evaluate", *map(str, (*words, "--out", tmp_path / "no"))])
            for words in (("coco", *common[1:]), (*common[:2], *common[3:], "--gendered", "man"))
        ]
    finally:
        speaking.stop()
    assert results(tmp_path / "plain")["measured"]["gendered captions"]["value"] == 1 / 2
    flips = results(tmp_path / "out")["flips"]
    assert {name: flips[name]["value"] for name in ("turned", "unchanged", "off_target")} == {
        "turned": 1,
        "unchanged": 1 / 2,
        "off_target": 0,
    }
    assert "--captions" in refused[0].stderr
    assert "add --captions" in refused[1].stderr


def test_samples_of_a_data_folder_are_asked_with_its_prompt(own: Path, tmp_path: Path) -> None:
    made = DataFolder(
        source="s",
        format="csv",
        digest="sha256:0",
        prompt="Briefly: {question}",
        shares=(1, 0, 0),
        parts={},
        samples={},
    )
    write_data_folder(own.parent, made)
    speaking = FakeEndpoint(lambda body: "yes")
    try:
        common = ("samples", own, "--base-url", speaking.url, "--served-model-name", "m", "--out", tmp_path / "out")
        assert CliRunner().invoke(app, ["evaluate", *map(str, common)]).exit_code == 0
    finally:
        speaking.stop()
    assert "Briefly: how many?" in [question_of(body) for body in speaking.seen]


def test_a_profile_made_with_another_prompt_is_doubted(own: Path, tmp_path: Path) -> None:
    speaking = FakeEndpoint(lambda body: "yes")
    speaking.cards = {
        "other": {"prompt": "Sadly:\n\x1b[2J {question}"},
        "same": {"prompt": "Briefly: {question}"},
        "silent": {"prompt": None},
        "broken": [],
    }

    def warned(name: str) -> list[str]:
        asked = ("--served-model-name", "m", "--out", tmp_path / name, "--prompt", "Briefly: {question}")
        command = ("evaluate", "samples", own, "--base-url", speaking.url, *asked, "--steering", name)
        done = CliRunner().invoke(app, [*map(str, command)])
        assert done.exit_code == 0, done.output
        return [line for line in done.stderr.splitlines() if "was made with" in line]

    try:
        assert [warned(name) for name in ("same", "silent", "broken", "absent")] == [[]] * 4
        (line,) = warned("other")
    finally:
        speaking.stop()
    assert line.startswith("trimtab: warning: the profile 'other' was made with the prompt 'Sadly:")
    assert "evaluated with 'Briefly: {question}'" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--images", "."), "names its pictures itself"),
        (("--map", "no=yes"), "--map needs --against"),
        (("--neutral", "person"), "are for captions"),
    ],
)
def test_what_ones_own_samples_have_no_use_for_is_refused(
    own: Path, server: FakeEndpoint, tmp_path: Path, more: tuple[str, str], sentence: str
) -> None:
    before = len(server.seen)
    common = ("samples", own, "--base-url", server.url, "--served-model-name", "m", "--out", tmp_path / "out")
    result = CliRunner().invoke(app, ["evaluate", *map(str, (*common, *more))])
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(server.seen) == before


def test_a_folder_in_place_of_a_samples_file_is_answered_with_what_it_holds(
    own: Path, server: FakeEndpoint, tmp_path: Path
) -> None:
    common = ("samples", own.parent, "--base-url", server.url, "--served-model-name", "m", "--out", tmp_path / "out")
    result = CliRunner().invoke(app, ["evaluate", *map(str, common)])
    assert result.exit_code == 1
    assert "is a folder; give a samples file" in result.stderr
    assert "mine.jsonl" in result.stderr


def test_runs_of_different_questions_are_not_compared(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    assert evaluate(server, house, "vqav2", tmp_path / "few", "--draw", 5).exit_code == 0
    result = evaluate(server, house, "vqav2", tmp_path / "all", "--against", tmp_path / "few")
    assert result.exit_code == 1
    assert "differ in nothing but the steering" in result.stderr


def test_pictures_that_are_missing_are_counted(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    FORMATS["pope"](_made(folder / "pope"), house / "split", read_split(house / "split"))
    first = sorted((folder / "pope" / "images").iterdir())[0]
    first.unlink()
    result = evaluate(server, folder, "pope", tmp_path / "out")
    assert result.exit_code == 0, result.output
    skipped = results(tmp_path / "out")["skipped"]["the picture is missing"]
    assert f"skipped {skipped}: the picture is missing" in result.stderr


def test_equal_runs_write_equal_results(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        assert evaluate(server, house, "vqav2", tmp_path / name).exit_code == 0
    assert (tmp_path / "one" / "results.json").read_bytes() == (tmp_path / "two" / "results.json").read_bytes()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (("--steering", '{"profil": "p"}'), "unknown field 'profil' in steering"),
        (("--steering", "[1"), "is not JSON"),
        (("--api-key-env", "NOT_SET_ANYWHERE"), "no environment variable has that name"),
        (("--draw", "-1"), "must be 1 or more"),
        (("--draw", "0"), "must be 1 or more"),
        (("--refusal", "never"), "is for mm-safetybench"),
        (("--map", "yes"), "cannot read the pair"),
        (("--map", "yes=no"), "--map needs --against"),
        (("--base-url", "localhost:8000"), "is no address of an endpoint"),
    ],
)
def test_settings_that_cannot_be_had_are_one_sentence(
    server: FakeEndpoint, house: Path, tmp_path: Path, more: tuple[str, str], sentence: str
) -> None:
    before = len(server.seen)
    result = evaluate(server, house, "vqav2", tmp_path / "out", *more)
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert len(server.seen) == before


def test_a_key_given_in_place_of_its_name_is_not_said_again(server: FakeEndpoint, house: Path, tmp_path: Path) -> None:
    result = evaluate(server, house, "vqav2", tmp_path / "out", "--api-key-env", "sk-0123456789")
    assert result.exit_code == 1
    assert "sk-0" not in result.output


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder
